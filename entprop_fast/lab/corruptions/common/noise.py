"""Add noise, drawn for each value of an image on its own."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from entprop_fast.counter_random import paired_normals, paired_uniforms
from entprop_fast.lab.corruptions.common.levels import LEVELS
from entprop_fast.optional import require

_BINS = 4096  # of the uniform number; in most of them all give the same count
_STEEP = 2.0**40  # makes a step of any difference of uniform numbers
_RAREST = 2.0**-25  # below half of the smallest uniform number


def gaussian_noise(images: Tensor, keys: Tensor, std: float) -> Tensor:
    """Make ``x + std z``."""
    return images.add(_normals(images, keys), alpha=std)


def speckle_noise(images: Tensor, keys: Tensor, std: float) -> Tensor:
    """Make ``x + std x z``."""
    return images.addcmul(images, _normals(images, keys), value=std)


def impulse_noise(images: Tensor, keys: Tensor, fraction: float) -> Tensor:
    """Make that fraction of the values 0 or 1, evenly."""
    u = paired_uniforms(keys, images[0].numel()).view(images.shape)
    # By arithmetic: torch's comparisons and masks take three times as long.
    kept, lit = (((u - bound) * _STEEP).clamp_(0, 1) for bound in (fraction, fraction / 2))
    return (images * kept).add_(lit.sub_(kept))


def shot_noise(images: Tensor, keys: Tensor, photons: float) -> Tensor:
    """Draw ``Poisson(photons x) / photons`` by inversion of the distribution function.

    The mean is that of the nearest of 256 levels, as the published code sees only 8-bit images:
    so there are few distributions, and a table gives nearly every draw at once.
    """
    u = paired_uniforms(keys, images[0].numel()).view(-1)
    level = (images.reshape(-1) * (LEVELS - 1)).round_().clamp_(0, LEVELS - 1).int()
    tables = _poisson_tables(photons, images.device)
    counts = tables.by_bin.index_select(0, level * _BINS + (u * _BINS).int())
    unclear = (counts < 0).nonzero()[:, 0]
    counts[unclear] = tables.searched(u[unclear], level[unclear], counts[unclear])
    return counts.view(images.shape).to(images.dtype).div_(photons)


@dataclass(frozen=True)
class _PoissonTables:
    """Inverse distribution functions of ``Poisson(photons level / 255)`` for all 256 levels.

    by_bin: int32 ``[levels * bins]``, the count that all u of a bin give, or -1 - (the least one).
    cumulative: the distribution functions one after the other, float32.
    first: where count 0 of each level would be in them, int32 ``[levels]``.
    widest: the most counts in a bin.
    """

    by_bin: Tensor
    cumulative: Tensor
    first: Tensor
    widest: int

    def searched(self, u: Tensor, level: Tensor, found: Tensor) -> Tensor:
        """Search the counts of those u by bisection, from what `by_bin` has for them."""
        first = self.first.index_select(0, level)
        place = first - 1 - found  # of the count, if its distribution function is above u
        step = 1 << max(0, self.widest.bit_length() - 1)
        while step:
            below = self.cumulative.index_select(0, place + (step - 1)) <= u
            place = place.add_(below, alpha=step)
            step >>= 1
        return place - first


@functools.lru_cache(maxsize=16)
def _poisson_tables(photons: float, device: torch.device) -> _PoissonTables:
    require("scipy", extra="train", purpose="corruption 'shot_noise'")
    from scipy.special import pdtr
    from scipy.stats import poisson

    edges = (np.arange(_BINS) / _BINS).astype(np.float32)
    values, by_bin, lows, widest = [], [], [], 0
    for level in range(LEVELS):
        mean = photons * level / (LEVELS - 1)
        low = int(poisson.ppf(_RAREST, mean)) if level else 0
        high = int(poisson.isf(_RAREST, mean)) + 1 if level else 0
        cdf = pdtr(np.arange(low, high + 1), mean).astype(np.float32)
        cdf[-1] = 2  # above any u
        least = np.searchsorted(cdf, edges, side="right")
        spread = np.diff(np.append(least, len(cdf) - 1))
        widest = max(widest, int(spread.max()))
        by_bin.append(np.where(spread == 0, least + low, -1 - (least + low)))
        values.append(cdf)
        lows.append(low)
    # Behind each level as much as a search reaches, so that it never sees the next one.
    padded = [np.append(cdf, np.full(2 * widest, 2, dtype=np.float32)) for cdf in values]
    offsets = np.cumsum([0, *map(len, padded[:-1])])
    return _PoissonTables(
        torch.from_numpy(np.concatenate(by_bin).astype(np.int32)).to(device),
        torch.from_numpy(np.concatenate(padded)).to(device),
        torch.from_numpy((offsets - lows).astype(np.int32)).to(device),
        widest,
    )


def _normals(images: Tensor, keys: Tensor) -> Tensor:
    return paired_normals(keys, math.prod(images.shape[1:])).view(images.shape)
