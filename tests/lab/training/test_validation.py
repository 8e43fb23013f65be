"""The best network is chosen by held-out images, as somebody else would measure them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from entprop_fast.lab.checkpoint import read
from entprop_fast.lab.corruptions import corrupt
from entprop_fast.lab.corruptions.common import common_corruption, to_bytes
from entprop_fast.lab.data import ImageData, load
from entprop_fast.lab.data.held_out import hold_out
from entprop_fast.lab.evaluation.metrics import NaNLogits
from entprop_fast.lab.training.best_network import BestNetwork
from entprop_fast.lab.training.load_network import load_network
from entprop_fast.lab.training.validation import DIGITS_KINDS, KINDS, SEVERITY, Validation
from tests.lab.conftest import Call, rows, summary

CPU = torch.device("cpu")


class Threshold(nn.Module):
    """Answers by the mean of the first pixels; trained by nobody."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.edges = nn.Parameter(torch.linspace(0.1, 0.7, classes))

    def forward(self, images: Tensor) -> Tensor:
        level = images[:, :1, :3].mean(dim=(1, 2, 3))
        return -(level[:, None] - self.edges).abs()


def by_hand(model: nn.Module, clean: Tensor, labels: Tensor, digits: bool) -> tuple[float, ...]:
    def accuracy(images: Tensor) -> float:
        return float((model(images).argmax(dim=1) == labels).double().mean())

    made = [
        corrupt(clean, kind, SEVERITY)
        if digits
        else to_bytes(common_corruption(clean, kind, SEVERITY)) / 255
        for kind in (DIGITS_KINDS if digits else KINDS)
    ]
    sa, ra = accuracy(clean), sum(map(accuracy, made)) / 5
    return 100 * sa, 100 * ra, 100 * 2 * sa * ra / (sa + ra)


@pytest.mark.parametrize("digits", [True, False])
def test_scores_are_those_of_five_corruptions_at_severity_3(
    digits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if digits:
        data = hold_out(load("digits", train_size=100), 0.4, seed=0)[1]
    else:
        images = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        held = to_bytes(images), torch.arange(20) % 4
        data = ImageData("mine", images[:4], torch.arange(4), *held, 4)
    assert isinstance(data, ImageData)
    validation, model = Validation(data, CPU, workers=0), Threshold(data.num_classes)
    validation.batch_size = 7  # draws do not depend on it
    clean = data.test_images.float() / (1 if digits else 255)
    expected = by_hand(model, clean, data.test_labels, digits)
    assert 0 < expected[1] < 100
    for _ in range(2):  # made, and kept
        assert tuple(validation.score(model)) == pytest.approx(expected, abs=1e-9)
    assert validation.images == 6 * data.num_test and model.training


def test_a_network_that_answers_nan_is_named() -> None:
    data = hold_out(load("digits", train_size=40), 0.4, seed=0)[1]
    model = Threshold(10)
    with torch.no_grad():
        model.edges.fill_(math.nan)
    with pytest.raises(NaNLogits, match="held-out images"):
        Validation(data, CPU, workers=0).score(model)


@pytest.mark.parametrize(
    ("scores", "patience", "best", "end"),
    [
        ([1, 2, 3, 4], 1, 4, None),
        ([1, 3, 3, 3], 2, 2, 4),  # as good is not better: the earlier one stays
        ([5, 4, 6, 1, 2, 3], 3, 3, 6),
        ([5, 4, 3, 2], None, 1, None),
    ],
)
def test_the_best_and_the_end(
    scores: list[float], patience: int | None, best: int, end: int | None
) -> None:
    kept, network = BestNetwork(patience), nn.Linear(1, 1)
    for epoch, score in enumerate(scores, start=1):
        network.weight.data.fill_(epoch)
        kept.offer(epoch, float(score), network)
        assert kept.out_of_patience(epoch) == (epoch == end)
    assert kept.epoch == best
    again = BestNetwork(patience)
    again.load_state_dict(kept.state_dict(), len(scores))
    assert (
        torch.equal(again.network(network).state_dict()["weight"], torch.full((1, 1), float(best)))
        and again.hscore == scores[best - 1]
    )
    with pytest.raises(ValueError, match="best epoch"):
        again.load_state_dict(kept.state_dict() | {"epoch": 9}, 3)


@pytest.mark.usefixtures("without_pictures")
def test_a_run_deploys_its_best_epoch_and_ends_when_none_is_better(
    run: Call, tmp_path: Path
) -> None:
    """At a rate at which nothing is learned the first epoch stays the best."""
    out = tmp_path / "run"
    words = ["--validation", "0.5", "--patience", "2", "--epochs", "9", "--lr", "1e-12"]
    said = run(out, *words, "--momentum", "0", "--no-nesterov", "--corruptions", "none", "--n", "1")
    scores = [row["validation_hscore"] for row in rows(out)]
    best = scores.index(max(scores)) + 1
    assert len(scores) == best + 2 < 9 and summary(out)["epochs"] == len(scores)
    assert summary(out)["best_epoch"] == best and summary(out)["train_size"] == 20
    assert f"the network of epoch {best} is deployed" in said and "held-out Hscore" in said
    deployed, *_ = load_network(out / "model.safetensors")
    state, kept = deployed.state_dict(), read(out / "best.pt")
    assert kept["epoch"] == best and kept["hscore"] == max(scores)
    for name, value in kept["model"].items():
        assert "aux" in name or torch.equal(value, state[name])
    load_network(out / "best.pt", pytest.fail)
