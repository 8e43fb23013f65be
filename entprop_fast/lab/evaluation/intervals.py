"""Say how sure an accuracy is: 95 % intervals over the draw of the test images."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from entprop_fast.lab.evaluation.metrics import hscore

CONFIDENCE = 0.95
_Z = 1.959963984540054  # of the normal distribution, two-sided
_RESAMPLES = 1000


class Interval(NamedTuple):
    """Bounds, in the units of what they bound."""

    low: float
    high: float


def wilson(correct: int, total: int) -> Interval:
    """Return Wilson's score interval (1927) of a share, for images drawn independently.

    Args:
        correct: images classified right.
        total: images, 1 or more.
    """
    share = correct / total
    scale = 1 + _Z**2 / total
    middle = (share + _Z**2 / (2 * total)) / scale
    spread = _Z / scale * math.sqrt(share * (1 - share) / total + (_Z / (2 * total)) ** 2)
    # Where all or none are right one bound is that, but for rounding.
    low = 0.0 if correct == 0 else middle - spread
    return Interval(low, 1.0 if correct == total else middle + spread)


def mean_by_image(shares: Tensor) -> Interval:
    """Return the normal interval of a mean over images, each with many results that hang together.

    All corrupted versions of an image count as one draw, so 75 of them do not make the interval
    narrower than the images allow.

    Args:
        shares: float ``[N]``, for each image the share of its versions that were right.
    """
    mean = float(shares.mean())
    if len(shares) < 2:
        return Interval(0.0, 1.0)
    error = _Z * float(shares.std()) / math.sqrt(len(shares))
    return Interval(max(0.0, mean - error), min(1.0, mean + error))


def hscore_by_image(clean: Tensor, shares: Tensor, seed: int = 0) -> Interval:
    """Bootstrap the Hscore's percentile interval (1000 resamples of the images).

    Args:
        clean: float ``[N]``, 1 where the clean image is right.
        shares: float ``[N]``, of the same images' corrupted versions.
        seed: of the resamples.
    """
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(_RESAMPLES, dtype=torch.float64)
    for i in range(_RESAMPLES):
        rows = torch.randint(len(clean), (len(clean),), generator=generator)
        sa, ra = clean[rows].mean(), shares[rows].mean()
        values[i] = hscore(float(sa), float(ra))
    tail = (1 - CONFIDENCE) / 2
    low, high = values.quantile(torch.tensor((tail, 1 - tail), dtype=torch.float64)).tolist()
    return Interval(low, high)
