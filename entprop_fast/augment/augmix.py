"""Augment by AugMix: chains of simple operations, mixed with each other and with the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from entprop_fast.augment.drawn_chains import (
    DEEPEST,
    ChainDraws,
    DrawnChains,
    depth_option,
    width_option,
)
from entprop_fast.augment.mixing_weights import beta, dirichlet
from entprop_fast.augment.sampled_levels import operations
from entprop_fast.counter_random import keys_of, uniforms
from entprop_fast.options import option

_MIX, _KEEP, _CHAINS = 1, 2, 3  # streams of an image's draws


@dataclass(frozen=True, kw_only=True)
class AugMix(DrawnChains):
    """Augment as AugMix does (Hendrycks et al., ICLR 2020; `augmix` in a chain).

    Each of `width` chains applies 1 to 3 operations of random kind and strength; the chains are
    mixed by Dirichlet weights w, and their mixture with the image x by m from a Beta law::

        (1 - m) x + m (w_1 chain_1(x) + ... + w_k chain_k(x))

        augment = AugMix()  # CIFAR; AugMix(severity=1) for ImageNet
        augment(images, ids, epoch=3)

    Laws and defaults are those of github.com/google-research/augmix (augmentations.py, cifar.py,
    imagenet.py), operations those of Pillow, with bilinear sampling, as there. A mixture is rounded
    to 8 bits here, where the original hands it on as float32, at most 1/510 away. Images need not
    be square: they are shifted by a third of their own width or height at severity 10. The original
    trains with the consistency loss of three views, `jsd=12` of a method.
    """

    name: ClassVar[str] = "augmix"

    severity: int = option(3, "Highest strength of an operation.", low=1, high=10)
    width: int = width_option()
    depth: int = depth_option()
    alpha: float = option(
        1.0, "Concentration of the Dirichlet and the Beta law.", low=0, open_low=True
    )
    all_ops: bool = option(
        False,
        "Apply color, contrast, brightness and sharpness, too, which overlap with the corruptions "
        "that robustness is tested by.",
    )

    def draw(self, keys: Tensor, size: tuple[int, int]) -> ChainDraws:
        """Draw what is done to the images of these keys, which are `size` (H, W) large."""
        depth = self.depth if self.depth > 0 else DEEPEST
        u = uniforms(keys_of(_CHAINS, keys), self.width * (1 + 3 * depth))
        u = u.view(-1, self.width, 1 + 3 * depth)
        kinds, levels, signs = u[:, :, 1:].unflatten(2, (3, depth)).unbind(2)
        codes, strengths = operations(
            kinds, levels, signs, severity=self.severity, all_ops=self.all_ops, size=size
        )
        if self.depth < 0:
            place = torch.arange(depth, device=keys.device)
            codes = codes * (place < 1 + (u[:, :, :1] * DEEPEST).floor())  # 0 is the identity
        mixed = beta(keys_of(_KEEP, keys), self.alpha)
        weights = dirichlet(keys_of(_MIX, keys), self.alpha, self.width)
        return ChainDraws(codes, strengths, mixed[:, None] * weights, 1 - mixed)
