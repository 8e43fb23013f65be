"""Augment by RandAugment: a few operations of any kind, all of one magnitude."""

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
from entprop_fast.options import option

# torchvision's `RandAugment`: shifts of 150 pixels in 331, as AutoAugment's for ImageNet.
SPACE = Space(shear=0.3, shift=0, shift_share=150 / 331, degrees=30, factor=0.9, bits=4)


@dataclass(frozen=True, kw_only=True)
class RandAugment(DrawnChains):
    """Apply operations of random kind and one magnitude (Cubuk et al., NeurIPS 2020).

    As torchvision's ``RandAugment``, whose defaults these are; `randaugment` in a chain::

        RandAugment(num_ops=2, magnitude=9)(images, ids, epoch=3)

    Operations are those of `TrivialAugment`, where differences from torchvision are listed.
    """

    name: ClassVar[str] = "randaugment"

    num_ops: int = option(2, "Operations, one after another.", low=0, high=16)
    magnitude: int = option(
        9, "Place of the operations' strength among num_magnitude_bins, from 0.", low=0
    )
    num_magnitude_bins: int = bins_option()
    interpolation: Literal["nearest", "bilinear"] = interpolation_option()

    def __post_init__(self) -> None:
        """Check every option, and that the magnitude is one of them."""
        super().__post_init__()
        if self.magnitude >= self.num_magnitude_bins:
            raise ValueError(
                f"magnitude={self.magnitude}: expected at most {self.num_magnitude_bins - 1}, the "
                f"last of num_magnitude_bins={self.num_magnitude_bins}"
            )

    def draw(self, keys: Tensor, size: tuple[int, int]) -> ChainDraws:
        """Draw what is done to the images of these keys, which are `size` (H, W) large."""
        alone = torch.ones(len(keys), 1, dtype=torch.float32, device=keys.device)
        shape = (len(keys), 1, self.num_ops)
        if self.num_ops == 0:
            codes = torch.zeros(shape, dtype=torch.uint8, device=keys.device)
            return ChainDraws(codes, alone.new_zeros(shape), alone, 1 - alone[:, 0])
        drawn = integers(keys, (KINDS, 2) * self.num_ops)
        kinds, signs = torch.stack(drawn[::2], 1), torch.stack(drawn[1::2], 1)
        strengths = strengths_of(
            kinds,
            torch.full_like(kinds, self.magnitude),
            signs > 0,
            space=SPACE,
            bins=self.num_magnitude_bins,
            size=size,
        )
        codes = codes_of(kinds, nearest=self.interpolation == "nearest")
        return ChainDraws(codes.view(shape), strengths.view(shape), alone, 1 - alone[:, 0])
