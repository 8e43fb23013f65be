"""Make a data set of arrays that came out of files; refuse what cannot be one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entprop_fast.lab.data.image_data import MOST_CLASSES, ImageData, ShiftSet
from entprop_fast.lab.data.split_checks import empty_classes

# Of one array. MedMNIST's largest has 4.1 GiB at 128 pixels, 60,000 float64 images of CIFAR 1.4.
MOST_BYTES = 2**33


def bytes_of(what: str, shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Return how many bytes an array takes that a file's header promises, before it is read.

    Raises:
        ValueError: more than `MOST_BYTES`; `what` names the array.
    """
    wanted: int = dtype.itemsize * math.prod(shape)
    if wanted > MOST_BYTES:
        raise ValueError(
            f"{what} says {wanted:,} bytes {tuple(shape)}, more than {MOST_BYTES:,}: keep so many "
            "images as files (folder:PATH), or make them smaller"
        )
    return wanted


def labels_of(
    numbers: NDArray[Any], images: int, what: str, of_what: str, *, first: int = 0
) -> Tensor:
    """Return labels int64 ``[N]`` that count from 0.

    Args:
        numbers: whole numbers ``[N]``.
        images: how many there are.
        what: names the labels in errors.
        of_what: names the images.
        first: the number of the first class in the file.

    Raises:
        ValueError: another kind or number of them, or numbers that are no classes.
    """
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise ValueError(
            f"{what} are {numbers.dtype} {numbers.shape}; whole numbers [N] wanted, one class an "
            "image"
        )
    if len(numbers) != images:
        raise ValueError(f"{len(numbers):,} labels and {images:,} images: {what}, {of_what}")
    low, high = (numbers.min(), numbers.max()) if len(numbers) else (first, first)
    if not first <= low <= high < MOST_CLASSES + first:
        raise ValueError(
            f"{what}: labels are {low} to {high}; {first} and up wanted, below "
            f"{MOST_CLASSES + first}"
        )
    return torch.from_numpy(numbers.astype(np.int64) - first)


def data_set_of(
    name: str,
    place: object,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    class_names: tuple[str, ...] = (),
    shifts: tuple[ShiftSet, ...] = (),
) -> ImageData:
    """Return a data set of training and test images ``[N, C, H, W]`` with labels of `labels_of`.

    Raises:
        ValueError: they do not belong together, or there are fewer than two classes, or a class
            has no training image; `place` says which files they are from.
    """
    for what, (images, _) in (("training", train), ("test", test)):
        if not len(images):
            raise ValueError(f"{place} holds no {what} image")
    if train[0].shape[1:] != test[0].shape[1:] or train[0].dtype != test[0].dtype:
        raise ValueError(
            f"{place}: training images are {train[0].dtype} {list(train[0].shape[1:])}, test "
            f"images {test[0].dtype} {list(test[0].shape[1:])}"
        )
    highest = max(int(one.max()) for one in (train[1], test[1], *(s.labels for s in shifts)))
    classes = len(class_names) or highest + 1
    if not highest:
        raise ValueError(f"{place}: every label is the first class; 2 classes at least are needed")
    if highest >= classes:
        raise ValueError(f"{place}: labels reach {highest}, and there are {classes} class_names")
    if empty := empty_classes(train[1].numpy(), class_names or [str(n) for n in range(classes)]):
        raise ValueError(f"{place}: {empty}")
    return ImageData(name, *train, *test, classes, class_names=class_names, shifts=shifts)
