"""Study whether the selection always picks the same images."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from entprop_fast.lab.data import DeviceLoader
from entprop_fast.lab.experiments.studies.differences import (
    HOW,
    NO_CELLS,
    against_baseline,
    baseline_of,
    corrected,
    paired,
)
from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table, cell
from entprop_fast.lab.experiments.studies.measures import gini
from entprop_fast.lab.experiments.studies.probe import Probe
from entprop_fast.lab.experiments.studies.runs import Settings, run_grid, source_of
from entprop_fast.lab.experiments.studies.variant_scores import draw_curves
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.errors import UsageError
from entprop_fast.lab.training.trainer import Trainer

BASELINE = "random"
# Hooks on the optimiser, which count, cannot be replayed.
_ALL: Settings = {"method": "entprop", "capture": "off"}
VARIANTS: dict[str, Settings] = {
    BASELINE: {**_ALL, "score": "random"},
    "entropy": {**_ALL, "score": "entropy"},
    "entropy, no mixing": {**_ALL, "score": "entropy", "mixup": 0.0},
}
TOP = 0.1  # of the images


class Selections(Probe):
    """Count how often each training image was selected, in training itself."""

    every_step = True

    def attach(self, trainer: Trainer) -> None:
        """Count after every step; a second loader of the same seed says which images it saw.

        Raises:
            UsageError: a step has several batches.
        """
        if (batches := trainer.accumulation.batches) > 1:
            raise UsageError(
                f"accumulate_batches={batches}: the study bias counts one batch a step; use 1"
            )
        super().attach(trainer)
        loader = trainer.loader
        places = torch.arange(loader.size)
        self._places = DeviceLoader(
            places.view(-1, 1, 1, 1).float(),  # only the labels are read
            places,
            loader.batch_size,
            seed=loader.seed,
            drop_last=loader.drop_last,
            device=trainer.device,
        )
        self.kept = [0] * len(places)
        trainer.optimizer.register_step_post_hook(lambda *_: self._count())

    def selected(self) -> Tensor:
        """Return the images that the last step selected, by their place."""
        _, batch = next(self._places.epoch(self.trainer.epoch, self.trainer.batch))
        index = self.trainer.method.selected_index
        assert index is not None
        return batch[index]

    def _count(self) -> None:
        for place in self.selected().tolist():
            self.kept[place] += 1


def measure(options: Options, reporter: Reporter) -> Table:
    """Compare selection at random, by entropy, and by entropy of unmixed images."""
    records = run_grid(options, VARIANTS, reporter, Selections)
    counts = {name: [record["seen"] for record in found] for name, found in records.items()}
    ginis = {name: [gini(one) for one in found] for name, found in counts.items()}
    rows: list[Row] = []
    for name, found in counts.items():
        lead = paired(ginis[name], ginis[BASELINE])
        rows.append(
            {
                "variant": name,
                "mean": statistics.fmean(statistics.fmean(one) for one in found),
                "most": statistics.fmean(max(one) for one in found),
                "never (%)": 100 * statistics.fmean(one.count(0) / len(one) for one in found),
                "top tenth (%)": 100 * statistics.fmean(_top_share(one) for one in found),
                "Gini": statistics.fmean(ginis[name]),
                **(NO_CELLS if name == BASELINE else lead),
            }
        )
    curves = {
        name: np.mean([sorted(one, reverse=True) for one in found], axis=0).tolist()
        for name, found in counts.items()
    }
    return Table(corrected(rows), {"curves": curves}, source_of(records))


def _top_share(counts: Sequence[int]) -> float:
    """Return the share of the selections that the most selected tenth of the images has."""
    top = max(1, round(TOP * len(counts)))
    return sum(sorted(counts, reverse=True)[:top]) / max(1, sum(counts))


def sentence(rows: Sequence[Row]) -> str:
    """Compare the inequality with random selection's, and say what it means for single images."""
    shares = ", ".join(
        f"{row['variant']} {cell(row['top tenth (%)'])} % (never selected: "
        f"{cell(row['never (%)'])} %)"
        for row in rows
    )
    return (
        f"Inequality of the selection (Gini) against {BASELINE} selection "
        f"({cell(baseline_of(rows)['Gini'])}; {HOW}): "
        f"{against_baseline(rows, digits=2)}; the most selected tenth of the images gets {shares}."
    )


def draw(figure: Figure, table: Table) -> None:
    """Draw the selections of the images, the most selected first."""
    axes = figure.subplots()
    draw_curves(axes, table.points["curves"])
    axes.set(xlabel="images, most selected first", ylabel="selections, mean over seeds")


STUDY = Study(
    "bias",
    "Does the selection always pick the same images?",
    "how often each training image is selected, by entropy, by entropy without mixing, at random",
    measure,
    sentence,
    draw,
)
