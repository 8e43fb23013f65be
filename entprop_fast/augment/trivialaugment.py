"""Augment by TrivialAugment: one operation of any kind and strength."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from entprop_fast.augment.drawn_chains import ChainDraws, DrawnChains
from entprop_fast.augment.magnitudes import (
    KINDS,
    Space,
    bins_option,
    codes_of,
    interpolation_option,
    strengths_of,
)
from entprop_fast.counter_random import integers

# Wide, of the paper's table 3 and torchvision's `TrivialAugmentWide`.
WIDE = Space(shear=0.99, shift=32, shift_share=0, degrees=135, factor=0.99, bits=6)


@dataclass(frozen=True, kw_only=True)
class TrivialAugment(DrawnChains):
    """Apply one operation of 14, of a random strength (Mueller and Hutter, ICCV 2021).

    The wide strengths, as torchvision's ``TrivialAugmentWide`` has them; `trivialaugment` in a
    chain::

        TrivialAugment()(images, ids, epoch=3)

    An image's operation gives what torchvision v2 gives for a PIL image, but that bilinear sampling
    may be a level off, nearest sampling falls to the other side of a tie, and a shift or solarize
    threshold that is a whole number is that number, where torchvision's float32 may miss it. For
    tensors torchvision itself differs from that. The authors' repository (automl/trivialaugment)
    cuts rotations and bits to integers and takes factors from 0.01 to 2 in 31 steps, where
    torchvision goes from 1 - 0.99 to 1 + 0.99. What comes from outside of the image is black.
    """

    name: ClassVar[str] = "trivialaugment"

    num_magnitude_bins: int = bins_option()
    interpolation: Literal["nearest", "bilinear"] = interpolation_option()

    def draw(self, keys: Tensor, size: tuple[int, int]) -> ChainDraws:
        """Draw what is done to the images of these keys, which are `size` (H, W) large."""
        kinds, places, signs = integers(keys, (KINDS, self.num_magnitude_bins, 2))
        strengths = strengths_of(
            kinds, places, signs > 0, space=WIDE, bins=self.num_magnitude_bins, size=size
        )
        codes = codes_of(kinds, nearest=self.interpolation == "nearest")
        alone = torch.ones_like(strengths)
        return ChainDraws(codes[:, None, None], strengths[:, None, None], alone[:, None], 1 - alone)
