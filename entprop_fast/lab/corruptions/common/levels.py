"""Cut to 8-bit levels, as the published code does at its end and, of some kinds, on its way.

It cuts downwards. Where an image is plain its result is a whole level but for the rounding of sums,
which decides between that level and the one below: kinds whose sums can be repeated in float64 are
cut as they come, others as if rounding had taken nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 256
NEAR = 1e-3  # of a level: what float32 may have taken from a whole one


def to_bytes(images: Tensor) -> Tensor:
    """Make images in [0, 1] uint8, cut off rather than rounded, as the published code does.

    What is a whole level up to rounding (1e-3 of one) is that level.
    """
    return whole(torch.add(torch.tensor(NEAR), images.float(), alpha=255))


def cut(images: Tensor) -> Tensor:
    """Cut images on their way to whole levels in [0, 1]: sums of few terms round by less."""
    levels = torch.add(torch.tensor(NEAR / 10), images, alpha=255)
    return levels.clamp_(0, LEVELS - 1).floor_().div_(LEVELS - 1)


def rounded(images: Tensor) -> Tensor:
    """Round images in [0, 1] to uint8: what the published code starts from."""
    return whole(torch.add(torch.tensor(0.5), images, alpha=255))


def whole(levels: Tensor) -> Tensor:
    """Clip floating levels, which become others, and cut them off to uint8."""
    # By way of int16, to which float and from which uint8 are converted several values at a time.
    return levels.clamp_(0, LEVELS - 1).to(torch.int16).to(torch.uint8)
