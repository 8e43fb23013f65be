"""Replace each 8-bit level by an entry of its image's table, as Pillow's ImageOps do."""

import torch
from torch import Tensor

from entprop_fast.devices import widest_float
from entprop_fast.ops.image_chains_codes import ImageOp


def mapped(levels: Tensor, ops: Tensor, strengths: Tensor, grey: Tensor) -> Tensor:
    """Apply the operations that are a table a channel; other images stay as they are.

    Args:
        levels: uint8 [B, C, H, W].
        ops: uint8 [B], without `NEAREST`.
        strengths: float32 [B].
        grey: uint8 [B, 1, H, W], see `image_chains_enhancement.grey`.
    """
    counts = _histogram(levels)
    level = torch.arange(256, device=levels.device)
    ops, strengths = ops[:, None, None], strengths[:, None, None]
    cut = 8 - strengths.clamp(0, 8).long()  # low bits that posterize clears
    tables = {
        ImageOp.AUTOCONTRAST: _autocontrast(counts, level),
        ImageOp.EQUALIZE: _equalize(counts, level),
        ImageOp.POSTERIZE: level >> cut << cut,
        ImageOp.SOLARIZE: torch.where(level >= strengths, 255 - level, level),
        ImageOp.INVERT: 255 - level,
        ImageOp.BRIGHTNESS: blended(torch.zeros_like(level), level, strengths),
        ImageOp.CONTRAST: blended(_mean(grey), level, strengths),
    }
    table = level
    for op, entries in tables.items():
        table = torch.where(ops == op, entries, table)
    table = table.to(torch.uint8).expand(*levels.shape[:2], 256)
    return table.gather(2, levels.flatten(2).long()).view(levels.shape)


def blended(start: Tensor, end: Tensor, factor: Tensor) -> Tensor:
    """Return ``start + factor (end - start)``, clamped to the levels and cut to an integer.

    As `PIL.Image.blend`: the product and the sum are each rounded to float32.
    """
    moved = (end.int() - start.int()).float() * factor
    return (start.float() + moved).clamp(0, 255).to(torch.int64)


def _histogram(levels: Tensor) -> Tensor:
    """Count each level of each channel, int64 [B, C, 256]."""
    place = levels.flatten(2).long()
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=levels.device)
    return counts.scatter_add_(2, place, place.new_ones(1).expand_as(place))


def _autocontrast(counts: Tensor, level: Tensor) -> Tensor:
    """Stretch the levels that occur over all 256."""
    there = counts > 0
    low = torch.where(there, level, 255).amin(2, keepdim=True)
    high = torch.where(there, level, 0).amax(2, keepdim=True)
    wide = (high - low).clamp(min=1).to(widest_float(level.device))
    # Roundings of their own, a quotient too (255 / wide would be a product with the reciprocal):
    # they decide where the exact result is an integer.
    scale = torch.full_like(wide, 255).div(wide)
    product = level * scale
    stretched = (product + -low * scale).clamp(0, 255).to(torch.int64)
    return torch.where(high <= low, level, stretched)


def _equalize(counts: Tensor, level: Tensor) -> Tensor:
    """Give each of 255 parts of the levels as many pixels, all but those of the highest level."""
    high = torch.where(counts > 0, level, 0).amax(2, keepdim=True)
    total = counts.sum(2, keepdim=True)
    step = (total - counts.gather(2, high)) // 255
    below = counts.cumsum(2) - counts
    parts = (step // 2 + below) // step.clamp(min=1)
    return torch.where(step == 0, level, parts.clamp(max=255))


def _mean(grey: Tensor) -> Tensor:
    """Return the mean of an image, rounded half up, [B, 1, 1]."""
    pixels = grey[0].numel() if len(grey) else 1
    total = grey.flatten(1).sum(1, dtype=torch.int64)
    return ((2 * total + pixels) // (2 * pixels))[:, None, None]
