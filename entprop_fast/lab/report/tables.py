"""Show the tables that the commands end with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from entprop_fast.lab.report.numbers import NOTHING, number, of_column
from entprop_fast.lab.report.text import plain

# Scores of a run's summary, and their columns.
SCORES = {"sa": "SA", "ra": "RA", "hscore": "Hscore"}

# Columns of the tables, wherever they stand.
MEANINGS = {
    "SA": "accuracy on clean test images",
    "RA": "mean accuracy over corruptions and severities",
    "Hscore": "harmonic mean of SA and RA, all three in percent",
    "deviation": "standard deviation over seeds",
    "cost": "passes over the training images, counting every row that went through the network",
    "gap": "training accuracy minus SA",
    "difference": "to what the row is compared with, paired by seed",
    "low": "and high: its 95 % interval",
    "p": "of the paired t-test, Holm-corrected",
    "pairs": "seeds behind it",
}


def legend(columns: Iterable[str]) -> str:
    """Explain those of the columns that need it."""
    return "; ".join(f"{name}: {MEANINGS[name]}" for name in columns if name in MEANINGS)


def scores_table(rows: Sequence[Mapping[str, object]]) -> Table:
    """Make a column for each key; floats with one decimal, or two for `cost`."""
    left = [name for name, value in rows[0].items() if isinstance(value, str)]
    lines = [{name: of_column(name, value) for name, value in row.items()} for row in rows]
    return records_table(lines, folded=left)


def corruption_table(accuracies: Mapping[str, Sequence[float]]) -> Table:
    """Make a row for each kind of corruption, a column for each severity; accuracies in percent."""
    lines = []
    for kind, values in accuracies.items():
        of_severity = {str(place): number(value) for place, value in enumerate(values, 1)}
        lines.append({"corruption": kind, **of_severity, "mean": number(sum(values) / len(values))})
    return records_table(lines, folded=["corruption"])


def plain_table() -> Table:
    """Make a table without lines, to be filled."""
    return Table(box=None, pad_edge=False)


def records_table(
    lines: Sequence[Mapping[str, str]],
    columns: Sequence[str] | None = None,
    *,
    folded: Sequence[str] | None = None,
) -> Table:
    """Make a table of lines of cells by column.

    Args:
        lines: the cells; one that a line lacks is a dash.
        columns: all that the lines have, when left out.
        folded: columns that may take several lines, aligned left; all, when left out. The others
            are aligned right.
    """
    names = list(columns or dict.fromkeys(name for line in lines for name in line))
    table = plain_table()
    for name in names:
        whole = folded is not None and name not in folded
        justify: JustifyMethod = "right" if whole else "left"
        table.add_column(as_text(name), justify=justify, no_wrap=whole, overflow="fold")
    for line in lines:
        table.add_row(*(as_text(line.get(name, NOTHING)) for name in names))
    return table


def as_text(cell: str) -> Text:
    """Make a cell of a rich table that says what it is given: as a string it would be markup."""
    return Text(plain(cell))
