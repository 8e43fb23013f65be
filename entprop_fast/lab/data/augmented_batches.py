"""Augment the batches of a loader on their device, as one row or as the three of a consistency."""

from __future__ import annotations

from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from entprop_fast.augment import Augmentation, Chain, CropFlip
from entprop_fast.augment.augmentation import image_keys
from entprop_fast.augment.chain import apply_parts
from entprop_fast.augment.crop_flip import Moves
from entprop_fast.counter_random import keys_of

VIEWS = 3  # of a row, where a method compares what a network says of them
_CHANNELS = (1, 3)


class Draws(NamedTuple):
    """Hold what decides the augmentation of some images."""

    keys: Tensor  # int64 [rows]
    moves: Moves | None  # of a chain that begins with a crop

    def of(self, rows: slice) -> Draws:
        """Return those of some of the images."""
        return Draws(self.keys[rows], self.moves and self.moves.of(rows))


class BatchAugmenter:
    """Apply an augmentation to batches whose images are numbered.

    With 3 views a batch of B rows becomes one of 3B: the rows as they are after the crops and flips
    that the chain begins with, then a first augmented view of each, then a second one; all later
    parts of the chain make the views (AugMix's order, Hendrycks et al., ICLR 2020).

    Args:
        augment: a `Chain`, or one augmentation; None: none.
        views: 1 or 3.

    Raises:
        ValueError: other views, or three of a chain that has nothing to make them.
    """

    def __init__(self, augment: Augmentation | None, views: int = 1) -> None:
        self.augment = augment
        whole = augment.parts if isinstance(augment, Chain) else (augment,)
        self._parts = tuple(part for part in whole if part is not None)
        self._leading = sum(1 for _ in takewhile(_is_crop, self._parts))
        self.views = views

    @property
    def views(self) -> int:
        """The views of each row."""
        return self._views

    @views.setter
    def views(self, views: int) -> None:
        if views not in (1, VIEWS):
            raise ValueError(f"views={views!r}: expected 1 or {VIEWS}")
        if views == VIEWS and self._leading == len(self._parts):
            raise ValueError(
                f"{VIEWS} views of each row are compared, and the augmentation has no part that "
                "makes two of them: use --augment crop-flip+augmix, or another part after crop-flip"
            )
        self._views = views

    def draw(self, seed: int, epoch: int, rows: Tensor) -> Draws | None:
        """Draw for the images with these numbers; of a whole epoch at once, as each costs launches.

        Args:
            seed: of the run.
            epoch: from 0.
            rows: int64, on the device.
        """
        if not self._parts:
            return None
        keys = image_keys(seed, epoch, rows)
        first = self._parts[0]
        return Draws(keys, first.draw(keys) if isinstance(first, CropFlip) else None)

    def __call__(self, images: Tensor, rows: Tensor | None, draws: Draws | None) -> Tensor:
        """Return the batch of `images`' ``rows``, augmented.

        Args:
            images: ``[N, C, H, W]``, uint8 or floating in [0, 1].
            rows: int64 ``[B]``; None: all of them.
            draws: of those rows; None: they stay as they are, and have one view.
        """
        if draws is None:
            return images if rows is None else images[rows]
        first, done = self._parts[0], 0
        if isinstance(first, CropFlip) and draws.moves is not None:
            every = torch.arange(len(images), device=images.device) if rows is None else rows
            images, done = first.gather(images, every, draws.moves), 1  # crops as it picks the rows
        elif rows is not None:
            images = images[rows]
        self._check_channels(images)
        if self.views == 1:
            return apply_parts(self._parts, images, draws.keys, start=done)
        leading, later = self._parts[: self._leading], self._parts[self._leading :]
        images = apply_parts(leading, images, draws.keys, start=done)
        keys = torch.cat([keys_of(view, draws.keys) for view in (1, 2)])
        views = apply_parts(later, torch.cat((images, images)), keys)
        return torch.cat((images, views))

    def _check_channels(self, images: Tensor) -> None:
        if images.shape[1] not in _CHANNELS and self._leading < len(self._parts):
            names = ", ".join(part.name for part in self._parts[self._leading :])
            raise ValueError(f"images have {images.shape[1]} channels: {names} takes 1 or 3")


def _is_crop(part: Augmentation) -> bool:
    return isinstance(part, CropFlip)
