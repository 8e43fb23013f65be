"""Draw a comparison: what the methods reach, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from entprop_fast.lab.evaluation.metrics import hscore
from entprop_fast.lab.experiments.comparison.method_rows import MethodRow, compared_metric
from entprop_fast.lab.report.pictures import save_figure
from entprop_fast.lab.report.tables import SCORES
from entprop_fast.lab.report.text import picture

MARGIN = 2.0  # percent of accuracy around the points
COST_MARGIN = 1.2  # times the cost, to both sides of the points

_MARKERS = "osD^vP*X<>"


def draw_comparison(path: Path, rows: Sequence[MethodRow], *, source: str = "") -> None:
    """Draw SA against RA over contours of equal Hscore, and Hscore against cost.

    Bars are deviations. Where no corruption was tested, SA is drawn against cost alone. `source`
    says where those come from.
    """
    shown, metric = [row for row in rows if row.scores], compared_metric(rows)
    both = metric == "hscore"
    figure = Figure(figsize=(11 if both else 6, 4.4), layout="constrained")
    panels = figure.subplots(1, 2 if both else 1, squeeze=False)[0]
    if both:
        _draw_accuracies(panels[0], shown)
    _draw_costs(panels[-1], shown, metric)
    if shown:
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=4)
    if source:
        figure.suptitle(f"corruptions: {picture(source)}", fontsize=9)
    save_figure(figure, path)


def _draw_accuracies(axes: Axes, rows: Sequence[MethodRow]) -> None:
    axes.set(xlabel="SA (%)", ylabel="RA (%)", title="dotted: equal Hscore")
    for index, row in enumerate(rows):
        sa, ra = row.scores["sa"], row.scores["ra"]
        _point(axes, index, row.name, sa.mean, ra.mean, sa.deviation, ra.deviation)
    if rows:
        _draw_contours(axes)


def _draw_contours(axes: Axes) -> None:
    """Draw contours over what the points span and a margin, so that they do not widen the view."""
    spans = []
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        spans.append((max(low - MARGIN, 0.1), min(high + MARGIN, 100.0)))
    sa, ra = np.meshgrid(*(np.linspace(low, high, 100) for low, high in spans))
    heights = np.vectorize(hscore)(sa, ra)
    lines = axes.contour(sa, ra, heights, 8, colors="grey", linestyles="dotted")
    axes.clabel(lines, fmt="%g", fontsize=8)
    axes.set(xlim=spans[0], ylim=spans[1])


def _draw_costs(axes: Axes, rows: Sequence[MethodRow], metric: str) -> None:
    ylabel = f"{SCORES[metric]} (%)"
    axes.set(xlabel="cost (passes over the training images)", ylabel=ylabel, xscale="log")
    if costs := [row.cost.mean for row in rows if row.cost is not None]:
        # Rows of equal cost, as of equal passes, would leave a logarithmic axis no room.
        axes.set_xlim(min(costs) / COST_MARGIN, max(costs) * COST_MARGIN)
    for index, row in enumerate(rows):
        assert row.cost is not None  # it has scores
        score = row.scores[metric]
        _point(axes, index, row.name, row.cost.mean, score.mean, None, score.deviation)
    # 60, 100, 200 where the axis spans less than two decades, never 6 x 10^1.
    for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        set_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))
    axes.grid(alpha=0.3, which="both")


def _point(
    axes: Axes,
    index: int,
    name: str,
    x: float,
    y: float,
    x_deviation: float | None,
    y_deviation: float | None,
) -> None:
    axes.errorbar(
        x,
        y,
        xerr=x_deviation,
        yerr=y_deviation,
        fmt=_MARKERS[index % len(_MARKERS)],
        color=f"C{index % 10}",
        capsize=2,
        label=picture(name),
    )
