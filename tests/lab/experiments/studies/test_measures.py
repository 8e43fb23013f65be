from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from entprop_fast.lab.experiments.studies import measures


def test_auroc_counts_pairs() -> None:
    # positives 3 and 1, negatives 2 and 1: 3 beats both, 1 loses to 2 and ties with 1
    scores, positive = np.array([3.0, 1.0, 2.0, 1.0]), np.array([True, True, False, False])
    assert measures.auroc(scores, positive) == (1 + 1 + 0 + 0.5) / 4


def test_fpr95_is_at_the_threshold_of_95_percent() -> None:
    positives = np.arange(20.0) + 1  # 19 of 20 are at or above 2
    negatives = np.array([0.0, 1.5, 2.0, 30.0])
    scores = np.concatenate([positives, negatives])
    positive = np.arange(24) < 20
    assert measures.fpr95(scores, positive) == 2 / 4
    assert measures.fpr95(np.concatenate([positives, negatives - 100]), positive) == 0.0


def test_mahalanobis_is_to_the_nearest_class() -> None:
    # Symmetric classes: any shrinkage keeps the covariance a multiple of the identity.
    cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    train = torch.cat([cross, cross + torch.tensor([10.0, 0.0])])
    labels = torch.tensor([4, 4, 4, 4, 7, 7, 7, 7])
    found = measures.mahalanobis(torch.tensor([[0.0, 3.0], [10.0, 1.0], [9.0, 0.0]]), train, labels)
    # the variance of each coordinate is 1/2
    np.testing.assert_allclose(found, [9 / 0.5, 1 / 0.5, 1 / 0.5], rtol=1e-9)


def test_nearest_is_between_directions() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-5.0, 0.0]])
    found = measures.nearest(torch.tensor([[7.0, 0.0]]), train, neighbours=2)
    np.testing.assert_allclose(found, [math.sqrt(2)])  # 0, sqrt(2), 2
    np.testing.assert_allclose(measures.nearest(torch.tensor([[7.0, 0.0]]), train), [2.0])


def test_distance_to_a_set() -> None:
    others = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    found = measures.distance_to_set(torch.tensor([[3.0, 0.0], [3.0, 4.0]]), others)
    np.testing.assert_allclose(found, [3.0, 0.0])


def test_linear_separability() -> None:
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randn(200, 3, generator=generator)
    assert measures.linear_separability(cloud, cloud + 10) == 1.0
    # the same rows: whatever the classifier says is right for exactly one of each pair
    assert measures.linear_separability(cloud, cloud) == 0.5


def test_the_projection_keeps_the_longest_axes() -> None:
    points = torch.tensor([[0.0, 0, 0], [0, 10, 0], [0, 0, 1], [0, 10, 1]])
    found = measures.projection(points)
    np.testing.assert_allclose(np.abs(found), [[5, 0.5]] * 4, atol=1e-12)


def test_jaccard() -> None:
    assert measures.jaccard([1, 2, 3], [2, 3, 4]) == 2 / 4
    assert measures.jaccard([], []) == 1.0 and measures.jaccard([1], []) == 0.0


@pytest.mark.parametrize(
    ("counts", "expected"), [([3, 3, 3], 0.0), ([0, 0, 0, 1], 0.75), ([0, 0], 0.0), ([1, 3], 0.25)]
)
def test_gini(counts: list[float], expected: float) -> None:
    assert measures.gini(counts) == pytest.approx(expected)
