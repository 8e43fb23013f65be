"""Data sets by name, as whole tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entprop_fast.names import unknown
from entprop_fast.optional import needs

_DIGITS_TEST_IMAGES = 500


@dataclass(frozen=True)
class ImageData:
    """Images ``[N, C, H, W]``, labels int64 ``[N]`` in ``[0, num_classes)``.

    Images are float32 in [0, 1], or uint8 in training and test alike.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int


def load(name: str, *, train_size: int | None = None, seed: int = 0) -> ImageData:
    """A data set, split by ``seed``.

    ``digits``: scikit-learn's 1797 handwritten 8x8 digits, which come with its package. 500
    stratified images are the test set. A smaller ``train_size`` takes a stratified subset of the
    1297 others, and at one seed every subset lies within each larger one.

    Args:
        name: one of ``DATASETS``.
        train_size: training images to keep; None keeps all.
        seed: of the split and the subset, 0 to 2^32 - 1.

    Raises:
        ValueError: unknown name, ``train_size`` below the number of classes or above the number of
            training images, a seed out of range.
        ImportError: scikit-learn is not installed.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed = {seed} must be between 0 and {2**32 - 1}")
    return DATASETS[name](train_size, seed)


def _digits(train_size: int | None, seed: int) -> ImageData:
    with needs("sklearn", extra="train", purpose="dataset 'digits'"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16).float().unsqueeze(1)
    labels = torch.from_numpy(digits.target).long()
    num_classes = len(digits.target_names)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=_DIGITS_TEST_IMAGES, stratify=labels, random_state=seed
    )
    if train_size is not None:
        if not num_classes <= train_size <= len(train):
            raise ValueError(
                f"train_size = {train_size} must be between {num_classes} (the classes) "
                f"and {len(train)} (the training images of 'digits')"
            )
        train = train[_stratified_order(digits.target[train])[:train_size]]
    return ImageData(
        "digits", images[train], labels[train], images[test], labels[test], num_classes
    )


DATASETS: dict[str, Callable[[int | None, int], ImageData]] = {"digits": _digits}


def _stratified_order(labels: np.ndarray[Any, np.dtype[np.integer[Any]]]) -> Any:
    """An order whose every beginning holds the classes in their shares, within one image.

    The i-th of a class's n images goes to place ``(i + 1/2) / n`` of the unit interval.
    """
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(place, kind="stable")
