"""Rotate, shear and shift images of 8-bit levels, each by a matrix of its own, as Pillow does.

A pixel (x, y) of the result is taken at the source's ``(a0 (x + 1/2) + a1 (y + 1/2) + a2,
a3 (x + 1/2) + a4 (y + 1/2) + a5)``, in integers of 2^-F pixels, F = 16 for nearest sampling (so
does Pillow) and 24 for bilinear: the same bits on every device.
"""

import math

import torch
from torch import Tensor

from entprop_fast.devices import widest_float
from entprop_fast.ops.image_chains_codes import NEAREST, ImageOp

FRACTION = 24  # F of bilinear sampling
NEAREST_FRACTION = 16
WEIGHT = 11  # bits of a bilinear weight: 8 + 2 * 11 bits of a sum fit into 31


def moved(levels: Tensor, codes: Tensor, strengths: Tensor) -> Tensor:
    """Apply the geometric operations; images with another code stay as they are.

    Args:
        levels: uint8 [B, C, H, W].
        codes: uint8 [B].
        strengths: float32 [B].
    """
    height, width = levels.shape[2:]
    nearest = (codes & NEAREST) > 0
    bits = torch.where(nearest, NEAREST_FRACTION, FRACTION)
    a = _fixed(_matrix(codes % NEAREST, strengths, width, height), bits)
    across = torch.arange(width, device=levels.device)
    down = torch.arange(height, device=levels.device)[:, None]
    a0, a1, a2, a3, a4, a5 = (one[:, None, None] for one in a.unbind(1))
    shift = bits[:, None, None]
    x = a0 * across + a1 * down + a2
    y = a3 * across + a4 * down + a5
    cells = (x >> shift, y >> shift)
    inside = (cells[0] >= 0) & (cells[0] < width) & (cells[1] >= 0) & (cells[1] < height)
    found = torch.where(
        nearest[:, None, None, None],
        _taken(levels, *cells),
        _blended(levels, x, y),
    )
    return found * inside[:, None]


def _matrix(ops: Tensor, strengths: Tensor, width: int, height: int) -> Tensor:
    """Return a0 to a5, [B, 6]; (1, 0, 0, 0, 1, 0) for what is not geometric."""
    strength = strengths.to(widest_float(strengths.device))
    angle = torch.where(ops == ImageOp.ROTATE, strength, 0) * (-math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    middle_x, middle_y = width / 2, height / 2
    return torch.stack(
        [
            cos,
            sin + torch.where(ops == ImageOp.SHEAR_X, strength, 0),
            middle_x
            - cos * middle_x
            - sin * middle_y
            + torch.where(ops == ImageOp.TRANSLATE_X, strength, 0),
            torch.where(ops == ImageOp.SHEAR_Y, strength, 0) - sin,
            cos,
            middle_y
            + sin * middle_x
            - cos * middle_y
            + torch.where(ops == ImageOp.TRANSLATE_Y, strength, 0),
        ],
        dim=1,
    )


def _fixed(a: Tensor, bits: Tensor) -> Tensor:
    """Return the matrix as int64 of 2^-bits, its offsets moved to the middle of pixel (0, 0)."""
    a0, a1, a2, a3, a4, a5 = a.unbind(1)
    middle = torch.stack([a0, a1, a2 + a0 / 2 + a1 / 2, a3, a4, a5 + a3 / 2 + a4 / 2], dim=1)
    unit = (torch.ones_like(bits) << bits).to(a.dtype)[:, None]
    return (middle * unit + 0.5).floor().to(torch.int64)


def _taken(levels: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the levels at the columns x and rows y, [B, H, W] each, moved inside."""
    channels, height, width = levels.shape[1:]
    place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    place = place.flatten(1)[:, None].expand(-1, channels, -1)
    return levels.flatten(2).gather(2, place).view(levels.shape)


def _blended(levels: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean of four pixels at fixed-point places of their corners, cut to a level."""
    half, rounding = 1 << (FRACTION - 1), 1 << (FRACTION - WEIGHT - 1)
    (x, right), (y, low) = (
        (place >> FRACTION, ((place >> (FRACTION - WEIGHT)) & ((1 << WEIGHT) - 1)).int())
        for place in (x - half + rounding, y - half + rounding)
    )
    right, low = right[:, None], low[:, None]

    def row(y: Tensor) -> Tensor:
        first, second = _taken(levels, x, y).int(), _taken(levels, x + 1, y).int()
        return (first << WEIGHT) + (second - first) * right

    upper, lower = row(y), row(y + 1)
    return (((upper << WEIGHT) + (lower - upper) * low) >> (2 * WEIGHT)).to(torch.uint8)
