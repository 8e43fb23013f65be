"""Draw the picture of a report: a heat map of the corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.evaluation.evaluation_result import Evaluation
from entprop_fast.lab.report.pictures import draw_heat_map


def draw_heat_map_of(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """Draw accuracy: kind by severity of one network, kind by network of several."""
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


def _means(one: Evaluation) -> dict[str, float]:
    return {kind: sum(values) / len(values) for kind, values in one.corruptions.items()}


def _shared(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the kinds that all of them were tested under."""
    return [
        kind
        for kind in evaluations[0].corruptions
        if all(kind in one.corruptions for one in evaluations)
    ]


def _label(one: Evaluation) -> str:
    return one.name if one.norms == "main" else f"{one.name} ({one.norms})"


def _sources(evaluations: Sequence[Evaluation]) -> str:
    return "; ".join(dict.fromkeys(one.corruption_source for one in evaluations))
