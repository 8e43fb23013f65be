"""Evaluations side by side on a terminal; apart from the report, which needs no rich."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from entprop_fast.lab.evaluation.evaluation_report import NOTHING, scores, tests
from entprop_fast.lab.evaluation.evaluation_result import Evaluation
from entprop_fast.lab.report.tables import as_text, plain_table

if TYPE_CHECKING:  # it is of an extra, which `entprop_fast.run` asks for with better words
    from rich.table import Table


def terminal_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """For a rich console: the tests with their sources, then the scores."""
    lines = [
        {name: cell for name, cell in line.items() if name not in ("by", "images", "norms")}
        for line in tests(evaluations)
    ]
    means = [
        {name: cell for name, cell in line.items() if name != "corruptions" and cell != NOTHING}
        for line in scores(evaluations)
    ]
    return [_table(lines), _table(means)]


def _table(lines: Sequence[Mapping[str, str]]) -> Table:
    table = plain_table()
    header = list(dict.fromkeys(name for line in lines for name in line))
    for name in header:
        table.add_column(as_text(name), overflow="fold")
    for line in lines:
        table.add_row(*(as_text(line.get(name, NOTHING)) for name in header))
    return table
