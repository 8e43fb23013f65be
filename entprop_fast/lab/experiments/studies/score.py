"""Study whether it matters which uncertainty metric selects the rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from matplotlib.figure import Figure

from entprop_fast import reference
from entprop_fast.eval_mode import evaluating
from entprop_fast.lab import stopping
from entprop_fast.lab.experiments.one_run import Record
from entprop_fast.lab.experiments.studies.differences import HOW, against_baseline, corrected
from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table, number
from entprop_fast.lab.experiments.studies.measures import jaccard
from entprop_fast.lab.experiments.studies.probe import Probe
from entprop_fast.lab.experiments.studies.runs import run_grid, source_of
from entprop_fast.lab.experiments.studies.variant_scores import error_bars, score_rows
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.methods.targets import mixup
from entprop_fast.ops import select_topk

ARCHS = ("wrn10_0.5", "wrn16_0.5", "wrn10_1")  # the second is deeper, the third wider
SCORES = tuple(reference.SCORES)
BASELINE = "entropy"


class Overlap(Probe):
    """Measure how much of what entropy selects each metric selects too, on mixed batches.

    The network of every epoch's end, in eval mode; the mean over all batches of all epochs.
    """

    def __init__(self) -> None:
        self.kept = {score: [] for score in SCORES}

    def after_epoch(self, epoch: int) -> None:
        """Select with every metric from the same batches."""
        trainer = self.trainer
        generator = torch.Generator(trainer.device).manual_seed(epoch)
        k, beta = (float(getattr(trainer.method, name)) for name in ("k", "mixup"))
        found: dict[str, list[float]] = {score: [] for score in SCORES}
        with evaluating(trainer.model), torch.no_grad():
            for images, labels in trainer.loader.epoch(epoch - 1):
                stopping.check()
                mixed, _ = mixup(images[: len(labels)], labels, beta, generator)
                logits = trainer.model(mixed)
                m = reference.num_selected(k, len(labels))
                sets = {
                    score: select_topk(
                        reference.uncertainty(logits, labels, score, generator), m
                    ).tolist()
                    for score in SCORES
                }
                for score, chosen in sets.items():
                    found[score].append(jaccard(chosen, sets[BASELINE]))
        for score, overlaps in found.items():
            self.kept[score] += overlaps

    def seen(self) -> Any:
        """Return the mean Jaccard overlap with entropy's selection, by metric."""
        return {score: statistics.fmean(values) for score, values in self.kept.items()}


def measure(options: Options, reporter: Reporter) -> Table:
    """Train with every metric on every architecture."""
    archs = options.archs or ARCHS
    variants = {
        (arch, score): {"method": "entprop", "arch": arch, "score": score}
        for arch in archs
        for score in SCORES
    }
    named = {"/".join(key): settings for key, settings in variants.items()}
    records = run_grid(options, named, reporter, Overlap)
    rows: list[Row] = []
    for arch in archs:
        found = {score: records[f"{arch}/{score}"] for score in SCORES}
        for row in score_rows(found, BASELINE):
            overlap = _overlap(found[BASELINE], str(row["variant"]))
            rows.append({"arch": arch, **row, "overlap": overlap})
    return Table(corrected(rows), source=source_of(records))


def _overlap(records: Sequence[Record], score: str) -> float:
    return statistics.fmean(record["seen"][score] for record in records)


def sentence(rows: Sequence[Row]) -> str:
    """Compare Hscore with entropy's on each architecture, and give the overlaps."""
    parts = []
    for arch, group in groupby(rows, key=lambda row: row["arch"]):
        found = list(group)
        near = [row for row in found if row["variant"] not in (BASELINE, "random")]
        overlaps = [number(row, "overlap") for row in near]
        chance = next(number(row, "overlap") for row in found if row["variant"] == "random")
        parts.append(
            f"on {arch} {against_baseline(found)} (the sets that they select share "
            f"{min(overlaps):.2f} to {max(overlaps):.2f} with entropy's, random's {chance:.2f})"
        )
    return f"Hscore against selection by entropy ({HOW}): {'; '.join(parts)}."


def draw(figure: Figure, table: Table) -> None:
    """Draw Hscore and overlap by metric, a series for each architecture."""
    left, right = figure.subplots(1, 2)
    grouped = [(arch, list(group)) for arch, group in groupby(table.rows, lambda row: row["arch"])]
    for index, (arch, rows) in enumerate(grouped):
        # Side by side, so that no bar hides another.
        places = [place + 0.16 * (index - (len(grouped) - 1) / 2) for place in range(len(rows))]
        hscores = [number(row, "Hscore") for row in rows]
        left.errorbar(places, hscores, yerr=error_bars(rows), fmt="o", capsize=4, label=arch)
        right.plot(places, [number(row, "overlap") for row in rows], "o", label=arch)
    for axes in (left, right):
        axes.set_xticks(range(len(SCORES)), SCORES, rotation=30, ha="right")
        axes.grid(alpha=0.3)
        axes.legend()
    left.set(ylabel="Hscore (%), ± deviation over seeds")
    right.set(ylabel="Jaccard overlap with entropy's selection", ylim=(0, 1.05))


STUDY = Study(
    "score",
    "Does it matter which uncertainty metric selects the rows?",
    "seven metrics on three architectures (--archs takes others), with the overlap of the sets "
    "they select",
    measure,
    sentence,
    draw,
)
