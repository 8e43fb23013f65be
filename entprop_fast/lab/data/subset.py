"""Choose fewer images: every class in its share, small subsets within large ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]


def stratified_subset(
    name: str, labels: Integers, size: int, seed: int, *, setting: str = "train_size"
) -> Integers:
    """Choose the images of a data set to keep: drawn by ``seed``, in the order of the data set."""
    check_size(name, size, len(np.unique(labels)), len(labels), setting=setting)
    drawn = np.random.default_rng(seed).permutation(len(labels))
    kept = drawn[stratified_order(labels[drawn])[:size]]
    return np.sort(kept)


def stratified_order(labels: Integers) -> Integers:
    """Return an order whose every beginning holds the classes in their shares, within one image.

    The i-th of a class's n images goes to place ``(i + 1/2) / n`` of the unit interval.
    """
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(place, kind="stable")


def check_size(
    name: str, size: int, num_classes: int, there: int, *, setting: str = "train_size"
) -> None:
    """Raise ``ValueError`` unless there are as many images, and one of each class at least."""
    if not num_classes <= size <= there:
        raise ValueError(
            f"{setting} = {size} must be between {num_classes} (the classes) and {there} (the "
            f"{'training' if setting == 'train_size' else 'test'} images of {name!r})"
        )
