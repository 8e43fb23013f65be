"""Augment by chains of simple operations that are drawn for each image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.on_levels import on_levels
from entprop_fast.ops.image_chains import image_chains
from entprop_fast.options import option

# Operations of a chain whose depth is drawn: np.random.randint(1, 4) in augmix's cifar.py, and
# max_depth of PRIME's utils/prime.py.
DEEPEST = 3


def width_option() -> Any:
    """Return the option ``width`` of what mixes chains, for a dataclass."""
    return option(3, "Chains that are mixed.", low=1, high=16)


def depth_option() -> Any:
    """Return the option ``depth`` of what mixes chains, for a dataclass."""
    return option(
        -1,
        f"Operations of a chain; -1: 1 to {DEEPEST}, drawn for each chain.",
        choices=(-1, *range(1, 17)),
    )


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
