"""Blend images of 8-bit levels with their grey or smoothed selves, as Pillow's ImageEnhance."""

import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.ops.image_chains_codes import ImageOp
from entprop_fast.ops.image_chains_tables import blended


def enhanced(levels: Tensor, ops: Tensor, strengths: Tensor, grey: Tensor) -> Tensor:
    """Apply color and sharpness; images with another code stay as they are.

    Args:
        levels: uint8 [B, C, H, W].
        ops: uint8 [B], without `NEAREST`.
        strengths: float32 [B].
        grey: uint8 [B, 1, H, W], of `levels`.
    """
    ops, strengths = ops[:, None, None, None], strengths[:, None, None, None]
    coloured = ops == ImageOp.COLOR
    start = torch.where(coloured, grey, _smoothed(levels))
    factor = torch.where(coloured | (ops == ImageOp.SHARPNESS), strengths, 1)
    return blended(start, levels, factor).to(torch.uint8)


def grey(levels: Tensor) -> Tensor:
    """Return the luma of images (ITU-R 601-2, in 16 bits), uint8 [B, 1, H, W]."""
    if levels.shape[1] == 1:
        return levels
    red, green, blue = levels.int().unbind(1)
    luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return luma[:, None].to(torch.uint8)


def _smoothed(levels: Tensor) -> Tensor:
    """Average 3x3 pixels, the middle one five times, rounded; the outermost stay as they are."""
    if min(levels.shape[2:]) < 3:
        return levels
    wide = levels.int()
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    nine = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = (2 * (nine + 4 * wide[:, :, 1:-1, 1:-1]) + 13) // 26
    edge = torch.ones(levels.shape[2:], dtype=torch.bool, device=levels.device)
    edge[1:-1, 1:-1].fill_(False)
    return torch.where(edge, levels, F.pad(inner, (1, 1, 1, 1)).to(torch.uint8))
