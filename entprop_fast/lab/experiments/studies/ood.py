"""Study whether clean images of high entropy are more like shifted ones than random ones are."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from entprop_fast import reference
from entprop_fast.lab import stopping
from entprop_fast.lab.data import channels_last
from entprop_fast.lab.experiments.studies import measures
from entprop_fast.lab.experiments.studies.differences import (
    HOW,
    against_baseline,
    corrected,
    counted,
    paired,
)
from entprop_fast.lab.experiments.studies.features import features, features_of
from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table, number
from entprop_fast.lab.experiments.studies.probe import Probe
from entprop_fast.lab.experiments.studies.runs import run_grid, source_of
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.finish import open_suite
from entprop_fast.ops import select_topk

SHARE = 0.2  # of the clean images
SEVERITY = 3
NEARNESS = "nearer to shifted"
DETECTORS = ("max-softmax", "energy", "Mahalanobis", "k-NN", NEARNESS)
DISTANCE = "distance"  # to the nearest image of a corrupted set, over that of the training set
GROUPS = {"shifted": "shifted", "high": "high entropy, clean", "random": "random, clean"}
COLUMNS = (
    *(f"{kind} {group}" for group in GROUPS for kind in ("AUROC", "FPR95")),
    *(f"{DISTANCE} {group}" for group in ("high", "random")),
)


class Detectors(Probe):
    """Ask each detector about the finished network's test images, and measure how near they are.

    Even test images are the clean ones; the odd ones, under every corruption, the shifted ones, so
    that no image is on both sides. `NEARNESS` is the distance to the nearest training image minus
    that to the nearest shifted one, in feature space; it cannot be asked about the shifted images
    themselves.
    """

    def seen(self) -> Any:
        """Return AUROC and FPR95 by detector; distances of both groups by corruption."""
        trainer = self.trainer
        model, loader = trainer.model, trainer.loader
        shifted = self._shifted()
        train, _, train_labels = features_of(
            model, loader.first_batches(loader.size, trainer.test.batch_size)
        )
        clean, logits = (one[::2] for one in features_of(model, trainer.test.batches())[:2])
        found = torch.cat([clean, *(one for one, _ in shifted.values())])
        all_logits = torch.cat([logits, *(one for _, one in shifted.values())])
        to_train = measures.distance_to_set(clean, train)
        to_kinds = {
            kind: measures.distance_to_set(clean, one) for kind, (one, _) in shifted.items()
        }
        scores = {
            # Hendrycks and Gimpel, 2017; Liu et al., 2020.
            "max-softmax": _uncertainty(all_logits, "confidence"),
            "energy": _uncertainty(all_logits, "energy"),
            "Mahalanobis": measures.mahalanobis(found, train, train_labels),
            "k-NN": measures.nearest(found, train),
            NEARNESS: to_train - np.min(list(to_kinds.values()), axis=0),
        }
        count = len(clean)
        m = reference.num_selected(SHARE, count)
        chosen = {
            "high": select_topk(reference.entropy(logits), m),
            "random": torch.randperm(
                count, generator=torch.Generator().manual_seed(trainer.config.seed)
            )[:m],
        }
        groups = {name: index.cpu().numpy() for name, index in chosen.items()}
        detected: dict[str, dict[str, float]] = {}
        for name, values in scores.items():
            detected[name] = {}
            if name != NEARNESS:
                detected[name] = _both("shifted", values, np.arange(len(values)) >= count)
            for group, index in groups.items():
                inside = np.zeros(count, dtype=bool)
                inside[index] = True
                detected[name] |= _both(group, values[:count], inside)
        distances = {
            kind: {
                group: float(values[index].mean() / to_train[index].mean())
                for group, index in groups.items()
            }
            for kind, values in to_kinds.items()
        }
        return {"detectors": detected, "distances": distances}

    def _shifted(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Read features and logits of the odd test images under every corruption behind RA."""
        trainer = self.trainer
        suite = open_suite(trainer)
        assert suite is not None  # a study refuses to go without
        batches: dict[str, list[tuple[Tensor, Tensor]]] = {kind: [] for kind in suite.kinds}
        places = [place for place in suite.places if place.severity == SEVERITY]
        for (kind, _, first), images, labels in suite.samples(places):
            stopping.check()
            if kind in batches and len(labels) + first % 2 > 1:
                odd = images[1 - first % 2 :: 2].to(trainer.device)
                batches[kind].append(features(trainer.model, channels_last(odd)))
        found = {}
        for kind, parts in batches.items():
            read, logits = zip(*parts, strict=True)
            found[kind] = torch.cat(read), torch.cat(logits)
        return found


def _uncertainty(logits: Tensor, score: str) -> measures.Array:
    """Score each row in float64, without labels."""
    labels = torch.zeros(len(logits), dtype=torch.int64)
    return reference.uncertainty(logits.cpu().double(), labels, score).numpy()


def _both(group: str, scores: measures.Array, positive: Any) -> dict[str, float]:
    return {
        f"AUROC {group}": 100 * measures.auroc(scores, positive),
        f"FPR95 {group}": 100 * measures.fpr95(scores, positive),
    }


def measure(options: Options, reporter: Reporter) -> Table:
    """Look at a plainly trained network: the question is about images, not about a method."""
    grid = run_grid(options, {"vanilla": {"method": "vanilla"}}, reporter, Detectors)
    records = grid["vanilla"]
    detectors, distances = [], []
    for name in DETECTORS:
        seen = [record["seen"]["detectors"][name] for record in records]
        detectors.append(_row(name, seen, "AUROC"))
    for kind in records[0]["seen"]["distances"]:
        by_group = [record["seen"]["distances"][kind] for record in records]
        seen = [{f"{DISTANCE} {group}": one[group] for group in one} for one in by_group]
        distances.append(_row(f"to {kind}", seen, DISTANCE))
    return Table(corrected(detectors) + corrected(distances), source=source_of(grid))


def _row(name: str, seen: Sequence[Mapping[str, float]], compared: str) -> Row:
    """Average each column that has values; compare high entropy with random by `compared`."""
    row: Row = {"variant": name}
    for key in COLUMNS:
        row[key] = statistics.fmean(one[key] for one in seen) if key in seen[0] else None
    high, chance = ([one[f"{compared} {group}"] for one in seen] for group in ("high", "random"))
    return row | paired(high, chance)


def sentence(rows: Sequence[Row]) -> str:
    """Compare high-entropy with random images, and say how far the detectors are to be trusted.

    A corrupted set is nearer to a group whose distance to it, over that to the training images, is
    smaller.
    """
    detectors = [row for row in rows if row[f"{DISTANCE} high"] is None]
    distances = [row for row in rows if row[f"{DISTANCE} high"] is not None]
    known = [row for row in detectors if row["AUROC shifted"] is not None]
    quality = ", ".join(f"{row['variant']} {number(row, 'AUROC shifted'):.0f}" for row in known)
    return (
        f"AUROC (%) with which a detector of shifted images singles out the {SHARE:.0%} of the "
        "clean images with the highest entropy, against as many random ones "
        f"({HOW}): "
        f"{against_baseline(detectors)}; the same detectors' AUROC for images that are shifted: "
        f"{quality} (max-softmax and energy read the logits that the entropy is of); distance to a "
        "corrupted set in feature space, over that to the training images, of the images with high "
        "entropy against the random ones: "
        f"{counted(distances, 'larger', 'smaller', 'corruptions')}."
    )


def draw(figure: Figure, table: Table) -> None:
    """Draw AUROC by detector, and distance by corruption, a bar for each group."""
    figure.set_size_inches(13, 4.4)
    left, right = figure.subplots(1, 2)
    panels = ((left, "AUROC", list(GROUPS)), (right, DISTANCE, ["high", "random"]))
    for axes, measured, groups in panels:
        rows = [row for row in table.rows if row[f"{measured} high"] is not None]
        for group in groups:
            place = list(GROUPS).index(group)
            values = [row[f"{measured} {group}"] for row in rows]
            found = [(at, value) for at, value in enumerate(values) if value is not None]
            axes.bar(
                [at + 0.27 * (place - 1) for at, _ in found],
                [value for _, value in found],
                width=0.25,
                label=GROUPS[group],
                color=f"C{place}",
            )
        names = [str(row["variant"]) for row in rows]
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    left.axhline(50, color="black", linewidth=0.8, linestyle=":")
    left.set(ylabel="AUROC (%) against the other clean images", ylim=(0, 100))
    right.axhline(1, color="black", linewidth=0.8, linestyle=":")
    right.set(ylabel="distance to corrupted / to training images")
    legend = left.get_legend_handles_labels()
    figure.legend(*legend, loc="outside upper center", ncols=len(GROUPS))


STUDY = Study(
    "ood",
    "Are high-entropy clean images more like shifted ones than random clean images are?",
    "AUROC and FPR95 of max-softmax, energy, Mahalanobis and k-NN; distance in feature space to "
    "each corrupted set",
    measure,
    sentence,
    draw,
)
