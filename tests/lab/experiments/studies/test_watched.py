"""The studies that look into their runs."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest
import torch

from entprop_fast.lab.experiments.studies import STUDIES, Options, bias, entropy, norms, ood, score
from entprop_fast.lab.experiments.studies.differences import NO_CELLS, paired
from entprop_fast.lab.experiments.studies.form import Row
from entprop_fast.lab.experiments.studies.probe import Probe
from entprop_fast.lab.experiments.studies.runs import run_grid
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.methods import METHODS

from .conftest import lead


def entropies(selected: float, interval: tuple[float, float]) -> list[Row]:
    def row(kind: str, value: float, low: float, high: float) -> Row:
        return {"variant": kind, "whole run": value, **lead(value - 0.1, low, high)}

    return [
        {"variant": "unselected", "whole run": 0.1, **NO_CELLS},
        row("selected", selected, *interval),
        row("perturbed", 0.6, 0.4, 0.6),
    ]


def test_the_sentence_of_entropy() -> None:
    up = STUDIES["entropy"].sentence(entropies(0.2, (0.05, 0.15)))
    assert "higher: selected +0.100 (+0.050 to +0.150), perturbed +0.500" in up
    assert up.endswith("from lowest to highest: unselected, selected, perturbed.")
    down = STUDIES["entropy"].sentence(entropies(0.05, (-0.07, -0.03)))
    assert "lower: selected −0.050 (−0.070 to −0.030)" in down
    assert down.endswith("from lowest to highest: selected, unselected, perturbed.")
    unclear = STUDIES["entropy"].sentence(entropies(0.2, (-0.01, 0.21)))
    assert "no clear difference: selected +0.100" in unclear and "higher: perturbed" in unclear


@pytest.mark.parametrize(
    ("ginis", "word"), [((0.5, 0.61), "higher"), ((0.1, 0.19), "lower"), ((0.2, 0.5), "no clear")]
)
def test_the_sentence_of_bias(ginis: tuple[float, float], word: str) -> None:
    cells = paired([*ginis, sum(ginis) / 2], [0.3, 0.4, 0.35])
    shares: Row = {"top tenth (%)": 31.25, "never (%)": 2.5}
    rows: list[Row] = [
        {"variant": "random", "Gini": 0.35, **shares, **NO_CELLS},
        {"variant": "entropy", "Gini": sum(ginis) / 2, **shares, **cells},
    ]
    sentence = STUDIES["bias"].sentence(rows)
    assert f"{word}" in sentence and "entropy 31.2 % (never selected: 2.50 %)" in sentence
    others = {"higher", "lower", "no clear"} - {word}
    assert not any(other in sentence for other in others)


@pytest.mark.parametrize(("offset", "word"), [(5.0, "higher"), (-5.0, "lower")])
def test_the_sentence_of_size(offset: float, word: str) -> None:
    rows: list[Row] = []
    for size, mean in ((100, offset), (200, 0.0)):
        clear = lead(mean, mean - 1, mean + 1)
        rows.append({"images": size, "variant": "vanilla", "gap": 12.0, **NO_CELLS})
        rows.append({"images": size, "variant": "entprop", "gap": 4.5, **clear})
    few, many = STUDIES["size"].sentence(rows).split("; with ")
    assert f"with 100 images {word}: entprop" in few and "vanilla 12.0, entprop 4.50" in few
    assert "200 images no clear difference: entprop +0.0" in many and word not in many


def test_size_compares_every_method_with_plain_training(shared: Options) -> None:
    rows = STUDIES["size"].run(shared).rows
    assert len({row["images"] for row in rows}) == 3
    for images, of_size in groupby(rows, key=lambda row: row["images"]):
        found = list(of_size)
        assert found[0]["variant"] == "vanilla" and found[0]["difference"] is None, images
        assert {row["variant"] for row in found} == METHODS.keys() and len(found) == len(METHODS)


@pytest.mark.parametrize("name", ["entropy", "bias", "size"])
def test_a_study_runs(name: str, shared: Options) -> None:
    result = STUDIES[name].run(shared)
    assert result.sentence == STUDIES[name].sentence(result.rows)
    assert "a single seed has no interval" in result.sentence
    assert result.figure.axes and all(axes.lines for axes in result.figure.axes)


def test_selected_rows_are_those_of_higher_entropy(shared: Options) -> None:
    rows = {str(row["variant"]): row for row in STUDIES["entropy"].run(shared).rows}
    selected, unselected = rows["selected"], rows["unselected"]
    for name in ("at 10%", "at 50%", "at 100%", "whole run"):
        assert float(selected[name] or 0) > float(unselected[name] or 0) > 0


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
