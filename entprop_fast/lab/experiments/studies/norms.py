"""Study what the auxiliary norms learn, and whether one shared norm is worse."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from entprop_fast.lab import stopping
from entprop_fast.lab.evaluation.norm_drift import DRIFTS, drift
from entprop_fast.lab.experiments.one_run import Record
from entprop_fast.lab.experiments.studies.differences import (
    HOW,
    corrected,
    counted,
    paired,
    verdict,
)
from entprop_fast.lab.experiments.studies.features import features_by_layer, perturbed, radius
from entprop_fast.lab.experiments.studies.form import Cell, Options, Row, Study, Table, number
from entprop_fast.lab.experiments.studies.measures import linear_separability, projection
from entprop_fast.lab.experiments.studies.probe import Probe
from entprop_fast.lab.experiments.studies.runs import Settings, run_grid, source_of
from entprop_fast.lab.experiments.studies.variant_scores import column
from entprop_fast.lab.report.pictures import count_epochs
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.layers.dual_norm import DualNorm

VARIANTS: dict[str, Settings] = {
    "dual": {"method": "entprop", "norms": "dual"},
    "shared": {"method": "entprop", "norms": "shared"},
}
EARLY = 0.1  # of the run: what the end is compared with
SHOWN = 100  # images in the picture


class Norms(Probe):
    """Measure the distance of the two halves of every norm by epoch, and the last features."""

    def __init__(self) -> None:
        self.kept = {name: {} for name in DRIFTS}

    def after_epoch(self, epoch: int) -> None:
        """Measure every dual norm."""
        for name, module in self.trainer.model.named_modules():
            if isinstance(module, DualNorm):
                for kind, value in drift(module).items():
                    self.kept[kind].setdefault(name, []).append(value)

    def seen(self) -> Any:
        """Return drifts by kind and layer; separability by layer; the last layer in the plane."""
        trainer = self.trainer
        eps = radius(trainer.method)
        parts: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        for images, labels in trainer.test.batches():
            stopping.check()
            moving = perturbed(trainer.model, images, labels, eps)
            parts.append(
                (
                    features_by_layer(trainer.model, images),
                    features_by_layer(trainer.model, moving),
                )
            )
        clean, moved = (
            {name: torch.cat([one[name] for one in half]) for name in half[0]}
            for half in zip(*parts, strict=True)
        )
        last = list(clean)[-1]
        plane = projection(torch.cat([clean[last][:SHOWN], moved[last][:SHOWN]]))
        return {
            "drifts": self.kept,
            "separability": {
                name: 100 * linear_separability(clean[name], moved[name]) for name in clean
            },
            "plane": plane.tolist(),
        }


def measure(options: Options, reporter: Reporter) -> Table:
    """Train dual norms and shared ones with as many passes."""
    records = run_grid(options, VARIANTS, reporter, Norms)
    dual, shared = records["dual"], records["shared"]
    hscores = (column(dual, "hscore"), column(shared, "hscore"))
    rows = [_row("Hscore", "all", hscores, "shared norms")]
    layers = list(dual[0]["seen"]["separability"])
    separability = [
        _row(
            "separability",
            name,
            (_separability(dual, name), _separability(shared, name)),
            "shared norms",
        )
        for name in layers
    ]
    rows = corrected(rows) + corrected(separability)
    for kind in DRIFTS:
        rows += corrected(_drift_rows(kind, dual))
    planes = {name: found[0]["seen"]["plane"] for name, found in records.items()}
    curves = {kind: _mean_curves(dual, kind) for kind in DRIFTS}
    return Table(rows, {"curves": curves, "planes": planes}, source_of(records))


def _separability(records: Sequence[Record], layer: str) -> list[float]:
    return [record["seen"]["separability"][layer] for record in records]


def _drift_rows(kind: str, records: Sequence[Record]) -> list[Row]:
    layers = list(records[0]["seen"]["drifts"][kind])
    rows = []
    for name in layers:
        curves = [record["seen"]["drifts"][kind][name] for record in records]
        early = [curve[math.ceil(EARLY * len(curve)) - 1] for curve in curves]
        late = [curve[-1] for curve in curves]
        rows.append(_row(kind, name, (late, early), f"after {EARLY:.0%} of the run"))
    return rows


def _row(
    name: str,
    layer: str,
    pairs: tuple[Sequence[float], Sequence[float]],
    against: str,
) -> Row:
    values, others = pairs
    cells: dict[str, Cell] = {
        "measure": name,
        "layer": layer,
        "value": statistics.fmean(values),
        "against": against,
        "its value": statistics.fmean(others),
    }
    return cells | paired(values, others)


def _mean_curves(records: Sequence[Record], kind: str) -> Mapping[str, list[float]]:
    """Return, by layer, a value for each epoch: the mean over the seeds."""
    by_layer = [record["seen"]["drifts"][kind] for record in records]
    return {
        name: [statistics.fmean(v) for v in zip(*(one[name] for one in by_layer), strict=True)]
        for name in by_layer[0]
    }


def sentence(rows: Sequence[Row]) -> str:
    """Compare dual with shared norms, and say where the halves part."""
    hscore = next(row for row in rows if row["measure"] == "Hscore")
    parts = [f"With dual norms, against one shared set ({HOW}), Hscore: {verdict(hscore)}"]
    separability = [row for row in rows if row["measure"] == "separability"]
    if separability:
        parts.append(
            "linear separability of clean and adversarial features: "
            f"{counted(separability, 'higher', 'lower', 'layers')}"
        )
    for kind in DRIFTS:
        found = [row for row in rows if row["measure"] == kind]
        if found:
            most = max(found, key=lambda row: number(row, "value"))
            parts.append(
                f"{kind} of the two halves, largest in {most['layer']} "
                f"({number(most, 'value'):.2f}), since {found[0]['against']}: "
                f"{counted(found, 'grown', 'shrunk', 'layers')}"
            )
    return f"{'; '.join(parts)}."


def draw(figure: Figure, table: Table) -> None:
    """Draw drift over the epochs, and clean and adversarial images in the plane."""
    figure.set_size_inches(13, 7.5)
    panels = list(figure.subplots(2, 3).flat)
    for axes, (kind, curves) in zip(panels, table.points["curves"].items(), strict=False):
        for name, curve in curves.items():
            axes.plot(range(1, len(curve) + 1), curve, label=name)
        axes.set_title(kind)
        count_epochs(axes)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=6)
    rows = [row for row in table.rows if row["measure"] == "separability"]
    places = range(len(rows))
    panels[3].plot(places, [number(row, "value") for row in rows], "o-", label="dual")
    panels[3].plot(places, [number(row, "its value") for row in rows], "o-", label="shared")
    panels[3].set_xticks(places, [str(row["layer"]) for row in rows])
    panels[3].set(title="linear separability (%)")
    panels[3].legend()
    for axes, (name, points) in zip(panels[4:], table.points["planes"].items(), strict=True):
        half = len(points) // 2
        for label, rows_of in (("clean", points[:half]), ("adversarial", points[half:])):
            axes.scatter(*zip(*rows_of, strict=True), s=6, label=label)
        axes.set(title=f"{name}: principal components", xticks=[], yticks=[])
        axes.legend(fontsize=7)


STUDY = Study(
    "norms",
    "What do the auxiliary norms learn, and is one shared norm worse?",
    "drift of means, variances and affines of every layer; dual against one shared norm at the "
    "same passes, with linear separability of clean and adversarial features by layer and their "
    "principal components",
    measure,
    sentence,
    draw,
)
