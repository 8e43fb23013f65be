"""Compute what studies share: detectors of shifted samples, features, overlap, inequality."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

Array = NDArray[np.float64]

NEIGHBOURS = 10


def auroc(scores: Array, positive: NDArray[np.bool_]) -> float:
    """Return how often a positive scores above a negative, ties counted half."""
    return float(roc_auc_score(positive, scores))


def fpr95(scores: Array, positive: NDArray[np.bool_]) -> float:
    """Return the share of negatives at or above the threshold that 95 % of positives reach."""
    false_positives, true_positives, _ = roc_curve(positive, scores, drop_intermediate=False)
    return float(false_positives[np.argmax(true_positives >= 0.95)])


def mahalanobis(features: Tensor, train: Tensor, labels: Tensor) -> Array:
    """Return the squared distance to the nearest class mean, one covariance for all (Lee, 2018).

    The covariance is shrunk (Ledoit and Wolf), so that few training images suffice.

    Args:
        features: ``[N, D]``.
        train: of the training images ``[M, D]``.
        labels: of the training images ``[M]``.
    """
    known, classes = _array(train), labels.cpu().numpy()
    means = np.stack([known[classes == label].mean(axis=0) for label in np.unique(classes)])
    centred = known - means[np.searchsorted(np.unique(classes), classes)]
    precision = LedoitWolf(assume_centered=True).fit(centred).precision_
    offsets = _array(features)[:, None] - means  # [N, classes, D]
    return np.asarray(np.einsum("ncd,de,nce->nc", offsets, precision, offsets).min(axis=1))


def nearest(features: Tensor, train: Tensor, neighbours: int = NEIGHBOURS) -> Array:
    """Return the distance to the k-th nearest training image, features of length 1 (Sun, 2022)."""
    known, found = (_unit(_array(one)) for one in (train, features))
    index = NearestNeighbors(n_neighbors=min(neighbours, len(known))).fit(known)
    return np.asarray(index.kneighbors(found)[0][:, -1])


def distance_to_set(features: Tensor, others: Tensor) -> Array:
    """Return the Euclidean distance of each row to its nearest row of `others`."""
    index = NearestNeighbors(n_neighbors=1).fit(_array(others))
    return np.asarray(index.kneighbors(_array(features))[0][:, 0])


def linear_separability(first: Tensor, second: Tensor) -> float:
    """Return how well a linear classifier tells two sets of features apart; 0.5 is chance.

    Row i of both belongs to the same image: it is fitted on the even ones, scored on the odd ones.

    Args:
        first: ``[N, D]``, N of at least 2.
        second: the same shape.
    """
    sets = (_array(first), _array(second))
    seen, unseen = (np.concatenate([one[start::2] for one in sets]) for start in (0, 1))
    kinds = [np.repeat([0, 1], len(rows) // 2) for rows in (seen, unseen)]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(classifier.fit(seen, kinds[0]).score(unseen, kinds[1]))


def projection(features: Tensor) -> Array:
    """Project the rows to their first two principal components, ``[N, 2]``."""
    return np.asarray(PCA(n_components=2, svd_solver="full").fit_transform(_array(features)))


def jaccard(first: Collection[Any], second: Collection[Any]) -> float:
    """Return the intersection's size over the union's; two empty sets are the same set."""
    a, b = set(first), set(second)
    return len(a & b) / len(a | b) if a | b else 1.0


def gini(counts: Iterable[float]) -> float:
    """Return the inequality: 0 if all counts are the same, near 1 if one has everything."""
    values = np.sort(np.asarray(list(counts), dtype=np.float64))
    total, n = values.sum(), len(values)
    if total == 0:
        return 0.0
    ranks = np.arange(1, n + 1)
    return float(((2 * ranks - n - 1) * values).sum() / (n * total))


def _array(values: Tensor) -> Array:
    return np.asarray(values.detach().to("cpu", torch.float64).numpy(), dtype=np.float64)


def _unit(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = rows / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit
