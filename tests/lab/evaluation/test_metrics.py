"""Check accuracy, Hscore, intervals, calibration and corruption errors against definitions."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from entprop_fast.lab.corruptions.common import COMMON_KINDS
from entprop_fast.lab.data.natural_sets import IMAGENET_A, IMAGENET_R
from entprop_fast.lab.evaluation.corruption_error import ALEXNET_ERRORS, corruption_errors
from entprop_fast.lab.evaluation.intervals import hscore_by_image, mean_by_image, wilson
from entprop_fast.lab.evaluation.metrics import accuracy, hscore
from entprop_fast.lab.evaluation.running_metrics import RunningMetrics


class Bright(nn.Module):
    """Class 1 where the mean is above one half; it notes how it was run."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm2d(1), nn.BatchNorm2d(1).eval()
        self.seen: set[tuple[bool, bool]] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add((self.norm.training, torch.is_grad_enabled()))
        self.norm(x)
        bright = x.sub_(0.25).mul_(2).mean((1, 2, 3)) - 0.5  # it normalises its own input
        return torch.stack((-bright, bright), dim=1)

    def flags(self) -> list[bool]:
        return [module.training for module in (self, self.norm, self.frozen)]


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_accuracy_counts_right_answers_and_leaves_no_trace(batch_size: int) -> None:
    """FOUND W9: a model that writes into its input corrupts no test set."""
    images = torch.linspace(0, 1, 10).view(10, 1, 1, 1).expand(10, 1, 4, 4).clone()
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 0])  # rows 4 and 9 are wrong
    model, given = Bright(), images.clone()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batches = zip(given.split(batch_size), labels.split(batch_size), strict=True)
    assert accuracy(model, batches) == 0.8
    assert torch.equal(given, images)
    assert model.seen == {(False, False)}
    assert model.flags() == [True, True, False] and torch.is_grad_enabled()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_training_flags_come_back_after_an_error() -> None:
    model = Bright()
    with pytest.raises(ValueError, match="4D"):
        accuracy(model, [(torch.rand(6, 4), torch.zeros(6).long())])
    assert model.flags() == [True, True, False]
    with pytest.raises(ValueError, match="batches"):
        accuracy(model, [])


def test_hscore_is_the_harmonic_mean() -> None:
    assert hscore(0.7845, 0.4996) == pytest.approx(0.6104, abs=5e-5)  # the paper's vanilla row
    assert (hscore(1, 1), hscore(0, 0), hscore(0, 1)) == (1, 0, 0)
    assert hscore(0.3, 0.6) == pytest.approx(1 / ((1 / 0.3 + 1 / 0.6) / 2))


@pytest.mark.parametrize(("correct", "total"), [(0, 7), (7, 7), (1, 1), (83, 100), (9123, 10000)])
def test_wilson_is_scipys(correct: int, total: int) -> None:
    truth = scipy.stats.binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson(correct, total) == pytest.approx((truth.low, truth.high), abs=1e-12)


def test_mean_by_image_is_the_normal_interval() -> None:
    shares = torch.rand(50, dtype=torch.float64)
    error = scipy.stats.sem(shares.numpy())
    truth = scipy.stats.norm.interval(0.95, loc=shares.mean().item(), scale=error)
    assert mean_by_image(shares) == pytest.approx(truth, abs=1e-12)
    # An image that is wholly right or wrong is one draw: about as wide as SA's interval.
    low, high = mean_by_image((torch.arange(40) % 2).double())
    wide = wilson(20, 40)
    assert (high - low) == pytest.approx(wide.high - wide.low, rel=0.07)


def test_hscore_interval_holds_the_hscore_and_repeats() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = (torch.rand(300, generator=generator) < 0.9).double()
    shares = torch.rand(300, generator=generator).double()
    low, high = hscore_by_image(clean, shares)
    assert low < hscore(clean.mean().item(), shares.mean().item()) < high and high - low < 0.1
    assert (low, high) == hscore_by_image(clean, shares)


def test_calibration_error_by_its_definition() -> None:
    logits, labels = 3 * torch.randn(200, 7), torch.randint(7, (200,))
    metrics = RunningMetrics(200, torch.device("cpu"))
    for start, stop in ((0, 30), (30, 200)):
        metrics.add(start, logits[start:stop], labels[start:stop])
    probabilities = logits.double().softmax(1).numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    truth = 0.0
    for bin in range(15):
        inside = (confidence > bin / 15) & (confidence <= (bin + 1) / 15)
        if inside.any():
            truth += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.ece == pytest.approx(truth, abs=1e-12)
    assert metrics.correct == right.sum() and metrics.total == 200


def test_metrics_among_some_classes() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0, 0.0], [9.0, 3.0, 2.0, 0.0]])
    metrics = RunningMetrics(2, torch.device("cpu"), classes=torch.tensor([1, 2]))
    metrics.add(0, logits, torch.tensor([2, 2]))
    assert metrics.right.tolist() == [True, False]


def test_alexnets_corruption_error_is_100() -> None:
    assert tuple(ALEXNET_ERRORS) == COMMON_KINDS
    accuracies = {kind: [1 - error] * 5 for kind, error in ALEXNET_ERRORS.items()}
    errors, mce = corruption_errors(accuracies)
    assert mce == pytest.approx(100) and set(np.round(list(errors.values()), 9)) == {100.0}
    halved = {kind: [1 - error / 2] * 5 for kind, error in ALEXNET_ERRORS.items()}
    assert corruption_errors(halved | {"snow": [1.0] * 5})[1] == pytest.approx(50 * 14 / 15)
    with pytest.raises(ValueError, match="accuracies lack fog"):
        corruption_errors({kind: [0.5] for kind in ALEXNET_ERRORS if kind != "fog"})


def test_the_classes_of_imagenet_a_and_r_are_timms() -> None:
    found = find_spec("timm")  # not imported: that takes seconds
    assert found is not None and found.origin is not None
    for name, classes in (("a", IMAGENET_A), ("r", IMAGENET_R)):
        listed = Path(found.origin).parent / "data" / "_info" / f"imagenet_{name}_indices.txt"
        assert classes == tuple(map(int, listed.read_text().split()))
        assert len(set(classes)) == 200
