"""Draw the picture of a report: a heat map of the corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean as mean

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.evaluation.evaluation_result import Evaluation
from entprop_fast.lab.report.pictures import draw_heat_map


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
