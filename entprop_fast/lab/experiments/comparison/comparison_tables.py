"""A comparison as a table: on the terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from entprop_fast.lab.experiments.comparison.method_rows import HEADINGS, MethodRow, compared_metric
from entprop_fast.lab.experiments.statistics import CONFIDENCE, Difference, Spread
from entprop_fast.lab.report import text
from entprop_fast.lab.report.tables import NOTHING, as_text, plain_table
from entprop_fast.lab.report.tables import legend as meanings

_OWN_COLUMNS = ("method", *HEADINGS.values(), "cost", "seconds", "seeds")


def cells(rows: Sequence[MethodRow], baseline: str) -> list[dict[str, str]]:
    """The table's cells by heading, row for row; scores in percent."""
    metric = compared_metric(rows)
    over, interval = f"{HEADINGS[metric]} − {baseline}'s", f"{100 * CONFIDENCE:.0f} % interval"
    found = []
    for row in rows:
        gain = row.differences.get(metric)
        found.append(
            {
                "method": row.name,
                **{head: _spread(row.scores.get(name)) for name, head in HEADINGS.items()},
                over: NOTHING if gain is None else f"{gain.mean:+.1f}",
                interval: _interval(gain),
                "p": NOTHING if gain is None else _probability(gain.corrected_p),
                "ahead": NOTHING if gain is None else f"{gain.wins}/{gain.count}",
                "cost": NOTHING if row.cost is None else _cost(row.cost.mean),
                "seconds": NOTHING if row.seconds is None else f"{row.seconds.mean:.1f}",
                "seeds": f"{len(row.seeds)}{_failed(row)}",
            }
        )
    return found


def terminal_tables(rows: Sequence[MethodRow], baseline: str) -> list[Table]:
    """For a rich console: the scores, and the differences; each fits into 80 columns."""
    lines = cells(rows, baseline)
    compared = [heading for heading in lines[0] if heading not in _OWN_COLUMNS]
    shown = [line for row, line in zip(rows, lines, strict=True) if row.differences]
    tables = [_table(lines, _OWN_COLUMNS)]
    return [*tables, _table(shown, ("method", *compared))] if shown else tables


def markdown_table(rows: Sequence[MethodRow], baseline: str, *, without: Sequence[str] = ()) -> str:
    """The table in GitHub's Markdown, less the columns headed as in `without`."""
    lines = [
        {head: cell for head, cell in line.items() if head not in without}
        for line in cells(rows, baseline)
    ]
    return text.markdown_table([list(lines[0]), *(list(line.values()) for line in lines)])


def legend(
    baseline: str, *, seconds: bool = True, metric: str = "hscore", source: str | None = None
) -> str:
    """How the columns are to be read.

    Args:
        baseline: its row.
        seconds: whether they are shown.
        metric: that of the differences.
        source: where the corrupted images come from, empty where there are none; None: not said.
    """
    said = (
        f"Mean ± standard deviation over seeds; {meanings(HEADINGS.values())}. Differences to "
        f"{baseline} are paired by seed, with Student's interval; p: paired t-test, Holm-corrected "
        f"over the rows; ahead: seeds with a higher {HEADINGS[metric]}; {meanings(('cost',))}."
    )
    if seconds:
        said += " Seconds are a run's, with runs side by side."
    return said if source is None else f"{said} Corruptions: {source or 'none'}."


def percent(value: float | None) -> str:
    """With one decimal; a dash where there is none."""
    return NOTHING if value is None else f"{value:.1f}"


def json_row(row: MethodRow) -> dict[str, Any]:
    """A row as plain data; `failures` is a list, because JSON's keys are strings."""
    values = asdict(row) | {"seeds": list(row.seeds)}
    failures: Mapping[int, str] = values.pop("failures")
    return values | {"failures": [{"seed": s, "error": e} for s, e in failures.items()]}


def _table(lines: Sequence[Mapping[str, str]], columns: Sequence[str]) -> Table:
    table = plain_table()
    for heading in columns:
        table.add_column(
            as_text(heading),
            justify="left" if heading == "method" else "right",
            no_wrap=heading != "method",
            overflow="fold",
        )
    for line in lines:
        table.add_row(*(as_text(line[heading]) for heading in columns))
    return table


def _spread(value: Spread | None) -> str:
    if value is None:
        return NOTHING
    if value.deviation is None:
        return f"{value.mean:.1f}"
    return f"{value.mean:.1f} ± {value.deviation:.1f}"


def _interval(gain: Difference | None) -> str:
    if gain is None or gain.low is None or gain.high is None:
        return NOTHING
    return f"{gain.low:+.1f} to {gain.high:+.1f}"


def _probability(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< .0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def _cost(cost: float) -> str:
    return f"{cost:.1f}" if cost < 10 else f"{cost:.0f}"


def _failed(row: MethodRow) -> str:
    return f", {len(row.failures)} failed" if row.failures else ""
