"""What images of any size go through to become tensors of one size: torchvision's v2 transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from entprop_fast.optional import import_torchvision

# ImageNet's evaluation: the shorter side to 256 pixels, then the middle 224 of it.
_RESIZED, _CROPPED = 256, 224


def evaluation_transform(size: int) -> Callable[[Any], Tensor]:
    """A Pillow image to uint8 ``[3, size, size]``: shorter side to 8/7 size, middle cut out."""
    v2 = import_torchvision("transforms.v2", purpose="reading image files")
    resized = round(size * _RESIZED / _CROPPED)
    made: Callable[[Any], Tensor] = v2.Compose(
        [v2.Resize(resized), v2.CenterCrop(size), v2.PILToTensor()]
    )
    return made


def training_transform(size: int) -> Callable[[Any], Tensor]:
    """A Pillow image to uint8 ``[3, size, size]``: random crop of 8 to 100 % of it, random flip."""
    v2 = import_torchvision("transforms.v2", purpose="reading image files")
    made: Callable[[Any], Tensor] = v2.Compose(
        [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    )
    return made
