"""Study which rows the network is unsure of, and what mixing and perturbing add."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from entprop_fast import reference
from entprop_fast.eval_mode import evaluating
from entprop_fast.lab import stopping
from entprop_fast.lab.experiments.studies.differences import (
    HOW,
    NO_CELLS,
    against_baseline,
    baseline_of,
    corrected,
    paired,
)
from entprop_fast.lab.experiments.studies.features import perturbed, radius
from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table, cell, number
from entprop_fast.lab.experiments.studies.probe import Probe
from entprop_fast.lab.experiments.studies.runs import run_grid, source_of
from entprop_fast.lab.experiments.studies.variant_scores import draw_curves
from entprop_fast.lab.report.pictures import count_epochs
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.methods.targets import mixup
from entprop_fast.ops import select_topk

KINDS = ("unselected", "selected", "mixed", "perturbed")
BASELINE = "unselected"
SHARES = (0.1, 0.25, 0.5, 1.0)  # of the run


class Entropies(Probe):
    """Measure the mean entropy (nats) of each kind of row at every epoch's end, in eval mode.

    Selected, unselected: clean training rows, batch by batch; perturbed: the selected ones after
    the free step; mixed: the whole batch after MixUp.
    """

    def __init__(self) -> None:
        self.kept = {kind: [] for kind in KINDS}

    def after_epoch(self, epoch: int) -> None:
        """Measure all kinds."""
        trainer = self.trainer
        generator = torch.Generator(trainer.device).manual_seed(epoch)
        k, beta = (float(getattr(trainer.method, name)) for name in ("k", "mixup"))
        eps = radius(trainer.method)
        found: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
        for images, labels in trainer.loader.epoch(epoch - 1):
            stopping.check()
            images = images[: len(labels)]  # of several views the rows as they are
            clean = self._entropy(images)
            index = select_topk(clean, reference.num_selected(k, len(images)))
            others = torch.ones_like(labels, dtype=torch.bool).index_fill_(0, index, False)
            mixed, _ = mixup(images, labels, beta, generator)
            moved = perturbed(trainer.model, images[index], labels[index], eps)
            values = (clean[others], clean[index], self._entropy(mixed), self._entropy(moved))
            for kind, value in zip(KINDS, values, strict=True):
                found[kind].append(value)
        for kind, rows in found.items():
            self.kept[kind].append(float(torch.cat(rows).mean()))

    def _entropy(self, images: Tensor) -> Tensor:
        with evaluating(self.trainer.model), torch.no_grad():
            return reference.entropy(self.trainer.model(images.clone()))


def measure(options: Options, reporter: Reporter) -> Table:
    """Watch EntProp as the recipe has it."""
    grid = run_grid(options, {"entprop": {"method": "entprop"}}, reporter, Entropies)
    records = grid["entprop"]
    curves = {kind: [record["seen"][kind] for record in records] for kind in KINDS}
    means = {kind: [statistics.fmean(curve) for curve in curves[kind]] for kind in KINDS}
    average = {
        kind: [statistics.fmean(v) for v in zip(*curves[kind], strict=True)] for kind in KINDS
    }
    rows: list[Row] = []
    for kind in KINDS:
        row: Row = {"variant": kind}
        for share in SHARES:
            row[f"at {share:.0%}"] = average[kind][math.ceil(share * len(average[kind])) - 1]
        row["whole run"] = statistics.fmean(means[kind])
        lead = paired(means[kind], means[BASELINE])
        rows.append(row | (NO_CELLS if kind == BASELINE else lead))
    return Table(corrected(rows), {"curves": average}, source_of(grid))


def sentence(rows: Sequence[Row]) -> str:
    """Compare every kind with the unselected rows, and order them."""
    order = sorted(rows, key=lambda row: number(row, "whole run"))
    return (
        f"Mean entropy over the run, in nats, against {BASELINE} rows "
        f"({cell(baseline_of(rows)['whole run'])}; {HOW}): "
        f"{against_baseline(rows, digits=3)}; from lowest to highest: "
        f"{', '.join(str(row['variant']) for row in order)}."
    )


def draw(figure: Figure, table: Table) -> None:
    """Draw entropy over the epochs, by kind."""
    axes = figure.subplots()
    draw_curves(axes, table.points["curves"])
    axes.set_ylabel("entropy (nats), mean over seeds")
    count_epochs(axes)


STUDY = Study(
    "entropy",
    "Which rows is the network unsure of, and what do mixing and perturbing add?",
    "mean entropy of selected, unselected, mixed and perturbed rows at every epoch's end",
    measure,
    sentence,
    draw,
)
