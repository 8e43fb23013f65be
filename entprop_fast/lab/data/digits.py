"""Load scikit-learn's handwritten digits, which come with its package."""

from __future__ import annotations

import numpy as np
import torch

from entprop_fast.lab.data.image_data import ImageData
from entprop_fast.lab.data.subset import check_size, stratified_order
from entprop_fast.optional import require

SIDE = 8  # pixels

_TEST_IMAGES = 500


def load_digits(train_size: int | None, seed: int) -> ImageData:
    """Load 1797 images of 8x8: a stratified test set by ``seed``, a stratified part of the rest."""
    require("sklearn", extra="train", purpose="dataset 'digits'")
    from sklearn.datasets import load_digits as embedded
    from sklearn.model_selection import train_test_split

    digits = embedded()
    images = torch.from_numpy(digits.images / 16).float().unsqueeze(1)
    labels = torch.from_numpy(digits.target).long()
    num_classes = len(digits.target_names)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=_TEST_IMAGES, stratify=labels, random_state=seed
    )
    if train_size is not None:
        check_size("digits", train_size, num_classes, len(train))
        train = train[stratified_order(digits.target[train])[:train_size]]
    return ImageData(
        "digits",
        images[train],
        labels[train],
        images[test],
        labels[test],
        num_classes,
        class_names=tuple(map(str, digits.target_names)),
    )
