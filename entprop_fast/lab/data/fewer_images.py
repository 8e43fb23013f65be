"""Keep some images of a data set: training images by the run's seed, test images always the same.

The choice of test images is no part of a run's chance: every seed, and every evaluation later, is
scored on the same ones, and a smaller choice lies within each larger one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from entprop_fast.lab.data.image_data import ImageData
from entprop_fast.lab.data.image_files import ImageFiles
from entprop_fast.lab.data.subset import stratified_subset
from entprop_fast.options import option

_TEST_SEED = 0

ImageSetT = TypeVar("ImageSetT", ImageData, ImageFiles)


def test_size_option() -> Any:
    """Return the option ``test_size``, for a dataclass."""
    return option(
        None,
        "Number of test images, the same for every seed, each class in its share. Left out, all "
        "are used. Published corrupted sets need all.",
        low=1,
        group="data",
    )


def fewer_training(data: ImageData, size: int | None, seed: int) -> ImageData:
    """Return the data set with a stratified subset of its training images; None keeps all.

    Raises:
        ValueError: ``size`` below the number of classes, or above that of the images.
    """
    if size is None:
        return data
    kept = stratified_subset(data.name, data.train_labels.numpy(), size, seed)
    images, labels = data.train_images[kept], data.train_labels[kept]
    return replace(data, train_images=images, train_labels=labels)


def fewer_tests(data: ImageSetT, size: int | None) -> ImageSetT:
    """Return the data set with a stratified subset of its test images; None keeps all.

    Published corrupted sets hold all of them, in their order, so that a part has none.

    Raises:
        ValueError: ``size`` below the number of classes, or above that of the images.
    """
    if size is None:
        return data
    labels = data.test_labels.numpy()
    kept = stratified_subset(data.name, labels, size, _TEST_SEED, setting="test_size")
    if isinstance(data, ImageFiles):
        return replace(data, test=data.test.kept(kept.tolist()), official_corruptions=None)
    return replace(
        data,
        test_images=data.test_images[kept],
        test_labels=data.test_labels[kept],
        official_corruptions=None,
    )
