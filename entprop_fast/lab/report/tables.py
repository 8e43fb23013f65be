"""The tables that the commands end with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from entprop_fast.lab.report.text import plain

NOTHING = "–"  # where there is no number

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
    """A column for each key; floats with one decimal, or two for `cost`; None is a dash."""
    table = plain_table()
    for name in rows[0]:
        justify: JustifyMethod = "left" if isinstance(rows[0][name], str) else "right"
        table.add_column(as_text(name), justify=justify)
    for row in rows:
        table.add_row(*(as_text(_cell(name, value)) for name, value in row.items()))
    return table


def corruption_table(accuracies: Mapping[str, Sequence[float]]) -> Table:
    """Accuracy in percent, a row for each kind of corruption, a column for each severity."""
    table = plain_table()
    table.add_column("corruption")
    for severity in range(1, 1 + max(map(len, accuracies.values()), default=0)):
        table.add_column(str(severity), justify="right")
    table.add_column("mean", justify="right")
    for kind, values in accuracies.items():
        cells = [f"{value:.1f}" for value in (*values, sum(values) / len(values))]
        table.add_row(as_text(kind), *cells)
    return table


def plain_table() -> Table:
    """A table without lines, to be filled."""
    return Table(box=None, pad_edge=False)


def as_text(cell: str) -> Text:
    """A cell of a rich table that says what it is given: as a string it would be markup."""
    return Text(plain(cell))


def _cell(name: str, value: object) -> str:
    if value is None:
        return NOTHING
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if name.startswith("cost") else f"{value:.1f}"
