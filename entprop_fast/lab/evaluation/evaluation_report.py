"""Report evaluations side by side: files in a folder, tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from entprop_fast.lab.evaluation import evaluation_tables
from entprop_fast.lab.evaluation.evaluation_pictures import draw_heat_map_of
from entprop_fast.lab.evaluation.evaluation_result import Evaluation
from entprop_fast.lab.files import write_atomically, write_json
from entprop_fast.lab.report.numbers import NOTHING
from entprop_fast.lab.report.tables import records_table

JSON, MARKDOWN = "evaluation.json", "evaluation.md"
HEAT_MAP = "corruptions.png"


def write(folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """Write JSON, Markdown and its picture into a folder, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [one.as_dict() for one in evaluations]
    write_json(folder / JSON, {"evaluations": found})
    drawn = all(one.corruptions for one in evaluations)
    if drawn:
        draw_heat_map_of(folder / HEAT_MAP, evaluations)
    page = evaluation_tables.markdown(found, picture=HEAT_MAP if drawn else None)
    write_atomically(folder / MARKDOWN, page.encode())


def as_document(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Return what one JSON file holds: a network's own fields, or a list of several."""
    if len(evaluations) == 1:
        one = evaluations[0].as_dict()
        return {"checkpoint": one.pop("name"), **one}
    return {"evaluations": [one.as_dict() for one in evaluations]}


def terminal_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """Make the tests with their sources, then the scores, for a rich console."""
    found = [one.as_dict() for one in evaluations]
    lines = [
        {name: cell for name, cell in line.items() if name not in ("by", "images", "norms")}
        for line in evaluation_tables.tests(found)
    ]
    means = [
        {name: cell for name, cell in line.items() if name != "corruptions" and cell != NOTHING}
        for line in evaluation_tables.scores(found)
    ]
    return [records_table(lines), records_table(means)]
