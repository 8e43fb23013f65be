"""Intervals, calibration and corruption errors against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from entprop_fast.lab.corruptions.common import COMMON_KINDS
from entprop_fast.lab.data.natural_sets import IMAGENET_A, IMAGENET_R
from entprop_fast.lab.evaluation.corruption_error import ALEXNET_ERRORS, corruption_errors
from entprop_fast.lab.evaluation.intervals import hscore_by_image, mean_by_image, wilson
from entprop_fast.lab.evaluation.running_metrics import RunningMetrics


@pytest.mark.parametrize(("correct", "total"), [(0, 7), (7, 7), (1, 1), (83, 100), (9123, 10000)])
def test_wilson_is_scipys(correct: int, total: int) -> None:
    truth = scipy.stats.binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson(correct, total) == pytest.approx((truth.low, truth.high), abs=1e-12)


def test_mean_by_image_is_the_normal_interval() -> None:
    shares = torch.rand(50, dtype=torch.float64)
    error = scipy.stats.sem(shares.numpy())
    truth = scipy.stats.norm.interval(0.95, loc=shares.mean().item(), scale=error)
    assert mean_by_image(shares) == pytest.approx(truth, abs=1e-12)


def test_an_image_and_its_copies_are_one_draw() -> None:
    shares = (torch.arange(40) % 2).double()
    low, high = mean_by_image(shares)  # each image is wholly right or wrong: as SA's interval
    wide = wilson(20, 40)
    assert (high - low) == pytest.approx(wide.high - wide.low, rel=0.07)


def test_hscore_interval_holds_the_hscore_and_repeats() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = (torch.rand(300, generator=generator) < 0.9).double()
    shares = torch.rand(300, generator=generator).double()
    sa, ra = clean.mean().item(), shares.mean().item()
    low, high = hscore_by_image(clean, shares)
    assert low < 2 * sa * ra / (sa + ra) < high and high - low < 0.1
    assert (low, high) == hscore_by_image(clean, shares)


def test_calibration_error_by_its_definition() -> None:
    logits = 3 * torch.randn(200, 7)
    labels = torch.randint(7, (200,))
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


def test_a_tally_among_some_classes() -> None:
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
    halved["snow"] = [1.0] * 5
    assert corruption_errors(halved)[1] == pytest.approx(50 * 14 / 15)
    with pytest.raises(ValueError, match="lack fog"):
        corruption_errors({kind: [0.5] for kind in ALEXNET_ERRORS if kind != "fog"})


def test_the_classes_of_imagenet_a_and_r_are_timms() -> None:
    from importlib import resources

    for name, classes in (("a", IMAGENET_A), ("r", IMAGENET_R)):
        listed = resources.files("timm.data._info").joinpath(f"imagenet_{name}_indices.txt")
        assert classes == tuple(map(int, listed.read_text().split()))
        assert len(set(classes)) == 200
