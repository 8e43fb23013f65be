"""Report evaluations side by side: files in a folder, tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from rich.table import Table

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.evaluation import evaluation_tables
from entprop_fast.lab.evaluation.evaluation_result import Evaluation
from entprop_fast.lab.files import write_atomically, write_json
from entprop_fast.lab.report.numbers import NOTHING
from entprop_fast.lab.report.pictures import draw_heat_map
from entprop_fast.lab.report.tables import records_table

JSON, MARKDOWN = "evaluation.json", "evaluation.md"
HEAT_MAP = "corruptions.png"


def write(folder: Path, evaluations: Sequence[Evaluation]) -> list[str]:
    """Write JSON, Markdown and its picture into a folder, made if need be; return their names.

    There is no picture where a network was not measured on corrupted images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = [one.as_dict() for one in evaluations]
    write_json(folder / JSON, {"evaluations": found})
    drawn = all(one.corruptions for one in evaluations)
    if drawn:
        draw_heat_map_of(folder / HEAT_MAP, evaluations)
    page = evaluation_tables.markdown(found, picture=HEAT_MAP if drawn else None)
    write_atomically(folder / MARKDOWN, page.encode())
    return [MARKDOWN, JSON, *([HEAT_MAP] if drawn else [])]


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
    shifted = evaluation_tables.shifts(found)
    return [records_table(part) for part in (lines, means, shifted) if part]


def draw_heat_map_of(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """Draw accuracy: kind by severity of one network, kind by network of several."""
    first = evaluations[0]
    if len(evaluations) == 1:
        values = first.corruptions | first.extra
        title = f"{first.dataset}: accuracy (%), RA {first.ra:.1f}\n{first.corruption_source}"
        columns, along = [str(severity) for severity in SEVERITIES], "severity"
    else:
        shared = [
            kind
            for kind in first.corruptions
            if all(kind in one.corruptions for one in evaluations)
        ]
        values = {kind: [mean(one.corruptions[kind]) for one in evaluations] for kind in shared}
        sources = "; ".join(dict.fromkeys(one.corruption_source for one in evaluations))
        title = f"{first.dataset}: accuracy (%), mean of the severities\n{sources}"
        columns = [
            one.name if one.norms == "main" else f"{one.name} ({one.norms})" for one in evaluations
        ]
        along = ""
    labelled = {first.label_of(kind): each for kind, each in values.items()}
    draw_heat_map(path, labelled, columns, title=title, xlabel=along)
