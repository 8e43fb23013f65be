"""The pictures of a report: a heat map and a radar of the corruptions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from entprop_fast.data import SEVERITIES
from entprop_fast.evaluation.results import Evaluation
from entprop_fast.run.pictures import draw_heat_map, save_figure
from entprop_fast.text import picture


def draw_heat_map_of(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """Accuracy (percent): kind by severity of one network, kind by network of several."""
    first = evaluations[0]
    if len(evaluations) == 1:
        values = {
            first.label_of(kind): each for kind, each in (first.corruptions | first.extra).items()
        }
        title = f"{first.dataset}: accuracy (%), RA {first.ra:.1f}\n{first.corruption_source}"
        columns = [str(severity) for severity in SEVERITIES]
        draw_heat_map(path, values, columns, title=title, xlabel="severity")
        return
    means = {
        first.label_of(kind): [_means(one)[kind] for one in evaluations]
        for kind in _shared(evaluations)
    }
    title = f"{first.dataset}: accuracy (%), mean of the severities\n{_sources(evaluations)}"
    draw_heat_map(path, means, [_label(one) for one in evaluations], title=title)


def draw_radar(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """Accuracy (percent) under each kind, mean of the severities, a line for each network."""
    shared = _shared(evaluations)
    angles = [2 * math.pi * i / len(shared) for i in range(len(shared))]
    figure = Figure(figsize=(7.2, 7.2), layout="constrained")
    axes: Any = figure.add_subplot(projection="polar")
    for one in evaluations:
        values = [_means(one)[kind] for kind in shared]
        (line,) = axes.plot([*angles, angles[0]], [*values, values[0]], label=picture(_label(one)))
        axes.fill(angles, values, color=line.get_color(), alpha=0.08)
    axes.set_xticks(
        angles, [evaluations[0].label_of(kind).replace("_", "\n") for kind in shared], fontsize=8
    )
    axes.tick_params(axis="x", pad=10)
    axes.set_rlabel_position(180 / len(shared))  # between two kinds
    axes.set_ylim(0, 100)
    title = f"{evaluations[0].dataset}: accuracy (%)\n{_sources(evaluations)}"
    axes.set_title(picture(title), fontsize=9)
    if len(evaluations) > 1:
        axes.legend(loc="lower right", fontsize=8)
    save_figure(figure, path)


def _means(one: Evaluation) -> dict[str, float]:
    return {kind: sum(values) / len(values) for kind, values in one.corruptions.items()}


def _shared(evaluations: Sequence[Evaluation]) -> list[str]:
    """Kinds that all of them were tested under."""
    return [
        kind
        for kind in evaluations[0].corruptions
        if all(kind in one.corruptions for one in evaluations)
    ]


def _label(one: Evaluation) -> str:
    return one.name if one.norms == "main" else f"{one.name} ({one.norms})"


def _sources(evaluations: Sequence[Evaluation]) -> str:
    return "; ".join(dict.fromkeys(one.corruption_source for one in evaluations))
