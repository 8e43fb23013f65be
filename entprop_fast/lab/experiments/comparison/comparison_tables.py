"""Write a comparison as a table: on the terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from entprop_fast.lab.evaluation.intervals import CONFIDENCE
from entprop_fast.lab.experiments.comparison.method_rows import (
    MethodRow,
    compared_metric,
    shifts_of,
)
from entprop_fast.lab.experiments.statistics import (
    CORRECTION,
    TEST,
    Difference,
    Spread,
)
from entprop_fast.lab.report.numbers import NOTHING, difference, number, plus_minus, probability
from entprop_fast.lab.report.tables import SCORES, records_table
from entprop_fast.lab.report.tables import legend as meanings
from entprop_fast.lab.report.text import markdown_records

_OWN_COLUMNS = ("method", *SCORES.values(), "cost", "seconds", "seeds")


def cells(rows: Sequence[MethodRow], baseline: str) -> list[dict[str, str]]:
    """Return the table's cells by heading, row for row; scores in percent."""
    metric = compared_metric(rows)
    over, interval = f"{SCORES[metric]} − {baseline}'s", f"{100 * CONFIDENCE:.0f} % interval"
    shifts = shifts_of(row.scores for row in rows)
    found = []
    for row in rows:
        scores, cost, gain = row.scores, row.cost, row.differences.get(metric)
        found.append(
            {
                "method": row.name,
                **{head: spread_cell(scores.get(name)) for name, head in SCORES.items()},
                **{name: spread_cell(scores.get(name)) for name in shifts},
                over: difference(None if gain is None else gain.mean),
                interval: NOTHING if gain is None else _interval(gain),
                "p": probability(None if gain is None else gain.corrected_p),
                "ahead": NOTHING if gain is None else f"{gain.wins}/{gain.count}",
                "cost": NOTHING if cost is None else number(cost.mean, int(cost.mean < 10)),
                "seconds": number(None if row.seconds is None else row.seconds.mean),
                "seeds": f"{len(row.seeds)}{_failed(row)}",
            }
        )
    return found


def spread_cell(value: Spread | None) -> str:
    """Return ``80.3 ± 1.5``, without a deviation for a single value."""
    return NOTHING if value is None else plus_minus(value.mean, value.deviation)


def terminal_tables(rows: Sequence[MethodRow], baseline: str) -> list[Table]:
    """Make the scores and the differences for a rich console; each fits into 80 columns."""
    lines = cells(rows, baseline)
    shifts = shifts_of(row.scores for row in rows)
    compared = [heading for heading in lines[0] if heading not in (*_OWN_COLUMNS, *shifts)]
    shown = [line for row, line in zip(rows, lines, strict=True) if row.differences]
    parts: list[tuple[list[dict[str, str]], Sequence[str]]] = [(lines, _OWN_COLUMNS)]
    parts += [(lines, ("method", *shifts))] * bool(shifts)
    parts += [(shown, ("method", *compared))] * bool(shown)
    return [records_table(part, columns, folded=("method",)) for part, columns in parts]


def markdown_table(rows: Sequence[MethodRow], baseline: str, *, without: Sequence[str] = ()) -> str:
    """Write the table in GitHub's Markdown, less the columns headed as in `without`."""
    lines = [
        {head: cell for head, cell in line.items() if head not in without}
        for line in cells(rows, baseline)
    ]
    return markdown_records(lines)


def legend(
    baseline: str, *, seconds: bool = True, metric: str = "hscore", source: str | None = None
) -> str:
    """Explain how the columns are to be read.

    Args:
        baseline: its row.
        seconds: whether they are shown.
        metric: that of the differences.
        source: where the corrupted images come from, empty where there are none; None: not said.
    """
    said = (
        f"Mean ± standard deviation over seeds; {meanings(SCORES.values())}. Differences to "
        f"{baseline} are paired by seed, with Student's interval; p: {TEST}, {CORRECTION} "
        f"over the rows; ahead: seeds with a higher {SCORES[metric]}; {meanings(('cost',))}."
    )
    if seconds:
        said += " Seconds are a run's, with runs side by side."
    return said if source is None else f"{said} Corruptions: {source or 'none'}."


def json_row(row: MethodRow) -> dict[str, Any]:
    """Return a row as plain data; `failures` is a list, because JSON's keys are strings."""
    values = asdict(row) | {"seeds": list(row.seeds)}
    failures: Mapping[int, str] = values.pop("failures")
    return values | {"failures": [{"seed": s, "error": e} for s, e in failures.items()]}


def _interval(gain: Difference) -> str:
    if gain.low is None or gain.high is None:
        return NOTHING
    return f"{difference(gain.low)} to {difference(gain.high)}"


def _failed(row: MethodRow) -> str:
    return f", {len(row.failures)} failed" if row.failures else ""
