"""The studies that look into their runs."""

from __future__ import annotations

from pathlib import Path

import torch

from entprop_fast.lab.experiments.studies import Options, bias, entropy, norms, ood, score
from entprop_fast.lab.experiments.studies.probe import Probe
from entprop_fast.lab.experiments.studies.runs import run_grid
from entprop_fast.lab.report.progress import Reporter


class Checked(bias.Selections):
    """The images that the probe names, beside what the method made of those that it selected."""

    def __init__(self) -> None:
        super().__init__()
        self.own: list[float] = []
        self.other: list[float] = []

    def selected(self) -> torch.Tensor:
        places = super().selected()
        loader = self.trainer.loader
        moved, (images, _) = self.trainer.method.perturbed, loader.first(loader.size)
        assert moved is not None
        distances = (moved[:, None] - images).abs().amax(dim=(2, 3, 4))  # [m, N]
        self.own += distances.gather(1, places[:, None]).flatten().tolist()
        others = distances.scatter(1, places[:, None], 1.0)
        self.other += others.amin(dim=1).tolist()
        return places

    def seen(self) -> list[object]:
        return [super().seen(), self.own, self.other]


def test_counts_are_of_the_images_that_were_selected(shared: Options) -> None:
    variants = {"entropy, no mixing": bias.VARIANTS["entropy, no mixing"]}
    (record,) = run_grid(shared, variants, Reporter.quiet(), Checked)["entropy, no mixing"]
    counts, own, other = record["seen"]
    # 2 epochs of one batch of 64 images, 13 of them selected
    assert len(counts) == 64 and sum(counts) == len(own) == 2 * 13 and max(counts) <= 2
    assert max(own) <= 0.1 + 1e-6 < min(other)  # moved by eps, and no other image is as near


PROBES = (Probe, score.Overlap, entropy.Entropies, bias.Selections, norms.Norms, ood.Detectors)


def test_a_run_does_not_notice_that_it_is_watched(shared: Options) -> None:
    variants = {probe.__name__: {"method": "entprop", "capture": "off"} for probe in PROBES}
    probes = {probe.__name__: probe for probe in PROBES}
    grid = run_grid(shared, variants, Reporter.quiet(), probes)
    found = [record for (record,) in grid.values()]
    assert len({record["hscore"] for record in found}) == 1
    assert len({str(record["corruptions"]) for record in found}) == 1
    weights = [Path(record["folder"]) / "model.safetensors" for record in found]
    assert len({path.read_bytes() for path in weights}) == 1
