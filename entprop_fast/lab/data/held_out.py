"""Hold training images out, to choose a network by without looking at the test images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from entprop_fast.lab.data.datasets import ImageSet
from entprop_fast.lab.data.image_data import ImageData
from entprop_fast.lab.data.subset import stratified_order

_STREAM = 5  # sets the draw apart from that of ``train_size``


def hold_out(data: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split training images: every class in its share, drawn by `seed`.

    Args:
        data: the data set.
        share: of the training images that is held out, in (0, 1).
        seed: of the draw.

    Returns:
        The data set without them, and one whose test images they are.

    Raises:
        ValueError: less than an image of each class would be held out, or left.
    """
    labels = _training_labels(data).numpy()
    size = round(share * len(labels))
    classes = len(np.unique(labels))
    if not classes <= size <= len(labels) - classes:
        raise ValueError(
            f"validation={share:g}: holds {size} of the {len(labels)} training images of "
            f"{data.name!r} out; expected {classes} (its classes) to {len(labels) - classes}"
        )
    drawn = np.random.default_rng((seed, _STREAM)).permutation(len(labels))
    held = np.sort(drawn[stratified_order(labels[drawn])[:size]])
    kept = np.setdiff1d(np.arange(len(labels)), held)
    if isinstance(data, ImageData):
        images, targets = data.train_images, data.train_labels
        rest = replace(data, train_images=images[kept], train_labels=targets[kept])
        return rest, replace(data, test_images=images[held], test_labels=targets[held])
    rest_files = replace(data, train=data.train.kept(kept.tolist()))
    return rest_files, replace(data, test=data.train.kept(held.tolist()))


def _training_labels(data: ImageSet) -> Tensor:
    return data.train_labels if isinstance(data, ImageData) else data.train.labels
