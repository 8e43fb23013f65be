"""Refuse what a caller gives to train on, batch by batch, while it is on the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from entprop_fast.lab.training.augment_setting import AugmentSetting
from entprop_fast.methods.batch_checks import check_labels, check_values
from entprop_fast.methods.image_units import ImageUnits


class GivenCheck:
    """Refuse a batch that cannot be trained on, while it is on the host.

    Args:
        units: of the images, for the range of their values.
        values: look at those.
        augment: what is done to the images; None: nothing.

    Attributes:
        classes: of the network, once it is known.
    """

    def __init__(
        self, units: ImageUnits, *, values: bool, augment: AugmentSetting | None = None
    ) -> None:
        self.units, self.values, self.augment = units, values, augment
        self.classes: int | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Check images ``[B, C, H, W]`` and labels ``[B]``.

        Raises:
            ValueError: one of them does not fit.
        """
        if images.ndim != 4 or 0 in images.shape:
            raise ValueError(f"images have shape {tuple(images.shape)}; [B, C, H, W] wanted")
        if not images.is_floating_point() and images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype}; uint8 or a floating dtype is needed")
        if self.units.channels not in (1, images.shape[1]):
            raise ValueError(
                f"normalization has {self.units.channels} channels, images have {images.shape[1]}"
            )
        whole = not (
            labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
        )
        if not whole or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels are {labels.dtype} {tuple(labels.shape)}; integers [{len(images)}], the "
                "class of each image, wanted"
            )
        if self.augment is not None:
            self._check_augmentable(images, self.augment)
        check_labels(labels, self.classes)
        if self.values and images.is_floating_point():
            check_values(images, self.units)

    def of_one(self, image: Any, label: Any) -> None:
        """Check an image ``[C, H, W]`` and its label."""
        if not isinstance(image, Tensor):
            raise TypeError(f"image is a {type(image).__name__}; a tensor [C, H, W] wanted")
        self(image[None], torch.as_tensor(label)[None])

    def _check_augmentable(self, images: Tensor, augment: AugmentSetting) -> None:
        """Refuse images that are not as an augmentation takes them: bytes, or in [0, 1]."""
        parts = augment.chain.parts
        if not parts or not images.is_floating_point():
            return
        names = "+".join(part.name for part in parts)
        if self.units.normalization is not None:
            raise ValueError(
                f"augment={names!r} comes before a normalization, and floating images have been "
                "through it already: give uint8 images, which are normalised afterwards"
            )
        if self.units.input_range != (0.0, 1.0) and not augment.only_moves:
            raise ValueError(
                f"augment={names!r} takes uint8 images, or floating ones in [0, 1]: input_range is "
                f"{self.units.input_range}"
            )
