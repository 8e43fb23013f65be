"""Augment by chains of simple operations that are drawn for each image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.on_levels import on_levels
from entprop_fast.ops.image_chains import image_chains


class ChainDraws(NamedTuple):
    """Hold what is drawn for a batch: the arguments of `entprop_fast.ops.image_chains`.

    Attributes:
        codes: uint8 [B, width, depth].
        strengths: float32 [B, width, depth].
        weights: float32 [B, width], of the chains.
        keep: float32 [B], of the image itself.
    """

    codes: Tensor
    strengths: Tensor
    weights: Tensor
    keep: Tensor


@dataclass(frozen=True, kw_only=True)
class DrawnChains(Augmentation):
    """Apply what a subclass draws, on 8-bit levels."""

    def apply(self, images: Tensor, keys: Tensor) -> Tensor:
        """Augment checked images by the draws of their keys."""
        drawn = self.draw(keys, (images.shape[2], images.shape[3]))
        return on_levels(images, lambda levels: image_chains(levels, *drawn))

    @abstractmethod
    def draw(self, keys: Tensor, size: tuple[int, int]) -> ChainDraws:
        """Draw what is done to the images of these keys, which are `size` (H, W) large."""
