"""Warp images by a random smooth displacement each (PRIME)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from entprop_fast.ops.prime_draws import pair_normals


def random_displacements(
    keys: Tensor, cut: Tensor, scale: Tensor, size: tuple[int, int], highest: int
) -> tuple[Tensor, Tensor]:
    """Draw displacements, in pixels along x and along y, float32 [S, H, W] each.

    On the unit square a component is `scale` times the sum over modes (i, j) in a quarter disc,
    i^2 + j^2 < (cut + .5)^2, of c_ij sin(pi i y) sin(pi j x) with c_ij ~ N(0, 1 / (i^2 + j^2)).
    On n pixels the sine of i is, up to its sign, that of 2 q (n - 1) +- i for every q, so that
    n - 2 sines say all: one normal number stands for the sum of all modes that look alike,
    with the sum of their variances.

    Args:
        keys: int64 [S], the images' draws.
        cut: int32 [S].
        scale: float32 [S], the square root of the temperature.
        size: H and W.
        highest: no `cut` is larger.
    """
    height, width = size
    rows, columns = max(height - 2, 0), max(width - 2, 0)
    drawn = pair_normals(keys, 2 * rows * columns).view(len(keys), rows, columns, 2)
    spread = mode_variances(cut, size, highest).sqrt() * scale[:, None, None]
    along_y = _sines(height, keys.device)  # [H, rows]
    along_x = _sines(width, keys.device).mT
    dx = along_y @ (drawn[..., 0] * spread @ along_x) * width
    dy = along_y @ (drawn[..., 1] * spread @ along_x) * height
    return dx, dy


def mode_variances(cut: Tensor, size: tuple[int, int], highest: int) -> Tensor:
    """Return the variance of each mode that pixels tell apart, float32 [S, H - 2, W - 2]."""
    limit = (cut.float() + 0.5).square()[:, None, None]
    rows, columns = (max(n - 2, 0) for n in size)
    kind: dict[str, Any] = {"dtype": torch.float32, "device": cut.device}
    total = torch.zeros(len(cut), rows, columns, **kind)
    if rows == 0 or columns == 0:
        return total
    j = torch.arange(1.0, highest + 1, **kind)
    around = 2 * (size[1] - 1)
    same = torch.minimum(j % around, around - j % around)
    # Sums over the frequencies that look alike along x, [highest, W - 2].
    fold = (same[:, None] == torch.arange(1, columns + 1, device=cut.device)).float()
    own = torch.arange(1.0, rows + 1, **kind)[:, None]
    for turn in range(0, highest + rows + 1, 2 * (size[0] - 1)):
        for i in (turn + own, turn - own)[: 2 if turn else 1]:
            squared = i.square() + j.square()
            total += ((squared < limit) / squared) @ fold
    return total


def _sines(pixels: int, device: torch.device) -> Tensor:
    """Return sin(pi i x) at x = 0 ... 1 for i of 1 ... pixels - 2, float32 [pixels, pixels - 2]."""
    places = torch.arange(pixels, device=device)[:, None]
    modes = torch.arange(1, max(pixels - 1, 1), device=device)
    turns = max(2 * (pixels - 1), 1)
    return (places * modes % turns).double().mul_(2 * math.pi / turns).sin_().float()


def remap(images: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Sample images at (x - dx, y - dy), bilinearly and no further than their edge.

    Args:
        images: float32 [S, C, H, W].
        dx: float32 [S, H, W].
        dy: likewise.
    """
    height, width = images.shape[2:]
    x = (torch.arange(width, device=images.device) - dx).clamp_(0, width - 1)
    y = (torch.arange(height, device=images.device)[:, None] - dy).clamp_(0, height - 1)
    left, top = x.floor(), y.floor()
    tx, ty = ((a - b)[:, None] for a, b in ((x, left), (y, top)))
    left, top = left.long(), top.long()
    right, bottom = (left + 1).clamp_(max=width - 1), (top + 1).clamp_(max=height - 1)
    flat = images.flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        place = (row * width + column).flatten(1)[:, None].expand(-1, images.shape[1], -1)
        return flat.gather(2, place).view_as(images)

    upper = at(top, left) * (1 - tx) + at(top, right) * tx
    lower = at(bottom, left) * (1 - tx) + at(bottom, right) * tx
    return upper * (1 - ty) + lower * ty
