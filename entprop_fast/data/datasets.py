"""Data sets by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

from entprop_fast.data.digits import load_digits
from entprop_fast.data.image_data import ImageData
from entprop_fast.data.image_files import ImageFiles
from entprop_fast.names import unknown

ImageSet = ImageData | ImageFiles

EMBEDDED = "digits"
DATASETS = (EMBEDDED,)


@overload
def load(
    name: Literal["digits", "cifar10", "cifar100"],
    *,
    data_dir: str | Path | None = None,
    train_size: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
) -> ImageData: ...


@overload
def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    train_size: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
) -> ImageSet: ...


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    train_size: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
) -> ImageSet:
    """A data set with its training and test split.

    ``digits``: scikit-learn's 1797 handwritten 8x8 digits, which come with its package. 500
    stratified images by ``seed`` are the test set.

    Args:
        name: one of ``DATASETS``.
        data_dir: folder of its files; None for an embedded one.
        train_size: training images to keep, a stratified subset; at one seed every subset lies
            within each larger one. None keeps all.
        seed: of the digits' split and the subset, 0 to 2^32 - 1.
        image_size: height and width of images that are read from files, None for 224.

    Raises:
        ValueError: unknown name, ``train_size`` below the number of classes or above the number of
            training images, a seed out of range, an argument that the data set does not take.
        ImportError: a library that it needs is not installed.
    """
    if name != EMBEDDED:
        raise unknown("dataset", name, DATASETS)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed = {seed} must be between 0 and {2**32 - 1}")
    if data_dir is not None:
        raise ValueError(f"data set {name!r} is embedded and takes no --data-dir")
    return load_digits(train_size, seed)
