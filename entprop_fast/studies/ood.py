"""Are high-entropy clean images more like shifted ones than random clean images are?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from entprop_fast import reference
from entprop_fast.data import CORRUPTIONS, corrupt
from entprop_fast.ops import select_topk
from entprop_fast.run.progress import Reporter
from entprop_fast.studies import measures
from entprop_fast.studies.differences import against_baseline, paired
from entprop_fast.studies.form import Options, Row, Study, Table, number
from entprop_fast.studies.network import features
from entprop_fast.studies.runs import Probe, run_grid

SHARE = 0.2  # of the clean images
SEVERITY = 3
NEARNESS = "nearer to shifted"
DETECTORS = ("max-softmax", "energy", "Mahalanobis", "k-NN", NEARNESS)


class Detectors(Probe):
    """What each detector makes of the finished network's test images.

    Even test images are the clean ones; the odd ones, under every corruption, the shifted ones, so
    that no image is on both sides. `NEARNESS` is the distance to the nearest training image minus
    that to the nearest shifted one, in feature space; it cannot be asked about the shifted images
    themselves.
    """

    def seen(self) -> Any:
        """AUROC and FPR95 by detector."""
        trainer = self.trainer
        model, images = trainer.model, trainer.test.images
        others = [corrupt(images[1::2], kind, SEVERITY) for kind in CORRUPTIONS]
        train_images, train_labels = trainer.loader.first(trainer.loader.size)
        train, _ = features(model, train_images)
        clean, logits = features(model, images[::2])
        shifted, shifted_logits = features(model, torch.cat(others))
        found, all_logits = torch.cat([clean, shifted]), torch.cat([logits, shifted_logits])
        scores = {
            "max-softmax": measures.max_softmax(all_logits),
            "energy": measures.energy(all_logits),
            "Mahalanobis": measures.mahalanobis(found, train, train_labels),
            "k-NN": measures.nearest(found, train),
            NEARNESS: measures.distance_to_set(clean, train)
            - measures.distance_to_set(clean, shifted),
        }
        count = len(clean)
        m = reference.num_selected(SHARE, count)
        chosen = {
            "high": select_topk(reference.entropy(logits), m),
            "random": torch.randperm(
                count, generator=torch.Generator().manual_seed(trainer.config.seed)
            )[:m],
        }
        results: dict[str, dict[str, float]] = {}
        for name, values in scores.items():
            results[name] = {}
            if name != NEARNESS:
                results[name] = _both("shifted", values, np.arange(len(values)) >= count)
            for group, index in chosen.items():
                inside = np.zeros(count, dtype=bool)
                inside[index.cpu().numpy()] = True
                results[name] |= _both(group, values[:count], inside)
        return results


def _both(group: str, scores: measures.Array, positive: Any) -> dict[str, float]:
    return {
        f"AUROC {group}": 100 * measures.auroc(scores, positive),
        f"FPR95 {group}": 100 * measures.fpr95(scores, positive),
    }


def measure(options: Options, reporter: Reporter) -> Table:
    """A plainly trained network: the question is about images, not about a method."""
    records = run_grid(options, {"vanilla": {"method": "vanilla"}}, reporter, Detectors)["vanilla"]
    rows: list[Row] = []
    for name in DETECTORS:
        seen = [record["seen"][name] for record in records]
        row: Row = {"variant": name}
        for group in ("shifted", "high", "random"):
            for kind in ("AUROC", "FPR95"):
                key = f"{kind} {group}"
                there = key in seen[0]
                row[key] = statistics.fmean(one[key] for one in seen) if there else None
        high, chance = ([one[f"AUROC {group}"] for one in seen] for group in ("high", "random"))
        rows.append(row | paired(high, chance, comparisons=len(DETECTORS)).cells())
    return Table(rows)


def sentence(rows: Sequence[Row]) -> str:
    """AUROC of high-entropy against random images, and how far the detectors can be trusted."""
    known = [row for row in rows if row["AUROC shifted"] is not None]
    quality = ", ".join(f"{row['variant']} {number(row, 'AUROC shifted'):.0f}" for row in known)
    return (
        f"AUROC (%) with which a detector of shifted images singles out the {SHARE:.0%} of the "
        "clean images with the highest entropy, against as many random ones (95 % interval): "
        f"{against_baseline(rows)}; the same detectors' AUROC for images that are shifted: "
        f"{quality} (max-softmax and energy read the logits that the entropy is of)."
    )


def draw(figure: Figure, table: Table) -> None:
    """AUROC by detector and group."""
    axes = figure.subplots()
    names = [str(row["variant"]) for row in table.rows]
    groups = {"shifted": "shifted", "high": "high entropy, clean", "random": "random, clean"}
    for place, (group, label) in enumerate(groups.items()):
        found = [(i, row[f"AUROC {group}"]) for i, row in enumerate(table.rows)]
        places, values = zip(*((i, value) for i, value in found if value is not None), strict=True)
        axes.bar([i + 0.27 * (place - 1) for i in places], values, width=0.25, label=label)
    axes.axhline(50, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="AUROC (%) against the other clean images", ylim=(0, 100))
    figure.legend(loc="outside upper center", ncols=len(groups))


STUDY = Study(
    "ood",
    "Are high-entropy clean images more like shifted ones than random clean images are?",
    measure,
    sentence,
    draw,
)
