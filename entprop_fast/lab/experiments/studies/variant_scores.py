"""Compare variants by their Hscore: rows, sentences and pictures of the studies that do."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from entprop_fast.lab.experiments.one_run import Record
from entprop_fast.lab.experiments.statistics import spread
from entprop_fast.lab.experiments.studies.differences import (
    HOW,
    NO_CELLS,
    against_baseline,
    baseline_of,
    corrected,
    paired,
)
from entprop_fast.lab.experiments.studies.form import Row, Table, cell, number
from entprop_fast.lab.experiments.studies.runs import Grid, source_of

_MARKERS = "osD"  # of the first ten rows, the second, ...


def score_rows(records: Mapping[str, Sequence[Record]], baseline: str) -> list[Row]:
    """Make a row for each variant: its scores, cost, and its lead over the baseline.

    p is not corrected yet, because the table may have further rows.

    Args:
        records: of each variant, in the order of the seeds.
        baseline: the variant that the others are compared with, seed by seed.
    """
    reference = column(records[baseline], "hscore")
    rows: list[Row] = []
    for name, found in records.items():
        hscores = column(found, "hscore")
        lead, over_seeds = paired(hscores, reference), spread(hscores)
        rows.append(
            {
                "variant": name,
                "SA": statistics.fmean(column(found, "sa")),
                "RA": statistics.fmean(column(found, "ra")),
                "Hscore": over_seeds.mean,
                "deviation": over_seeds.deviation,
                "cost": statistics.fmean(column(found, "cost")),
                **(NO_CELLS if name == baseline else lead),
            }
        )
    return rows


def score_table(records: Grid, baseline: str) -> Table:
    """Make a whole table of `score_rows`, corrected over it."""
    return Table(corrected(score_rows(records, baseline)), source=source_of(records))


def column(records: Sequence[Record], name: str) -> list[float]:
    """Return one value of each record."""
    return [float(record[name]) for record in records]


def hscores_in_words(rows: Sequence[Row], baseline: str) -> str:
    """Compare the variants' Hscore with the baseline's, without a full stop."""
    return (
        f"Hscore against {baseline} ({cell(baseline_of(rows)['Hscore'])}; {HOW}): "
        f"{against_baseline(rows)}"
    )


def costs_in_words(rows: Sequence[Row]) -> str:
    """Say what the ends of a sweep cost."""
    first, last = rows[0], rows[-1]
    return (
        f"from {first['variant']} to {last['variant']} the cost goes from "
        f"{cell(first['cost'])} to {cell(last['cost'])} passes over the training images"
    )


def draw_scores(figure: Figure, table: Table, xlabel: str) -> None:
    """Draw Hscore of the variants in their order, and against their cost, in the same colours."""
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    for place, row in enumerate(table.rows):
        style = {"fmt": _MARKERS[place // 10 % len(_MARKERS)], "color": f"C{place % 10}"}
        for axes, x in ((left, place), (right, number(row, "cost"))):
            bar = row["deviation"]
            axes.errorbar(x, number(row, "Hscore"), yerr=bar, capsize=4, **style)
    names = [str(row["variant"]) for row in table.rows]
    left.set_xticks(range(len(names)), names, rotation=30, ha="right")
    for place, label in enumerate(left.get_xticklabels()):
        label.set_color(f"C{place % 10}")
    left.set(xlabel=xlabel, ylabel="Hscore (%), ± deviation over seeds")
    right.set(xlabel="cost (passes over the training images)")
    for axes in (left, right):
        axes.grid(alpha=0.3)


def draw_curves(axes: Axes, curves: Mapping[str, Sequence[float]]) -> None:
    """Draw a line for each, over 1, 2, ..."""
    for name, curve in curves.items():
        axes.plot(range(1, len(curve) + 1), curve, label=name)
    axes.grid(alpha=0.3)
    axes.legend()


def ticks_at(many: Iterable[Axes], values: Sequence[float], xlabel: str) -> None:
    """Give axes a logarithmic scale with ticks at the values alone."""
    for axes in many:
        axes.set(xlabel=xlabel, xscale="log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        axes.grid(alpha=0.3)


def error_bars(rows: Sequence[Row], name: str = "deviation") -> Any:
    """Return half lengths for matplotlib, None where a row has none."""
    values = [row[name] for row in rows]
    return None if None in values else values
