"""Compute PRIME's primitives in plain PyTorch: curves, filters and warps, drawn and applied."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.counter_random import normals_by_word
from entprop_fast.devices import widest_float

_CHANNELS = 3  # draws are laid out for three channels; a grey image takes those of the first


def random_curves(
    keys: Tensor, bands: Tensor, scale: Tensor, channels: int, highest: int
) -> Tensor:
    """Draw the amplitudes of the curves' sines.

    Args:
        keys: int64 [S], the images' draws.
        bands: int32 [S, 2], the lowest and the highest frequency.
        scale: float32 [S], the amplitudes' standard deviation.
        channels: 1 or 3.
        highest: no band reaches further.

    Returns:
        float32 [S, channels, highest], the amplitudes of sin(pi k x) for k of 1 to `highest`.
    """
    drawn = normals_by_word(keys, _CHANNELS * highest).view(len(keys), highest, _CHANNELS)[
        ..., :channels
    ]
    k = torch.arange(1, highest + 1, device=keys.device)
    inside = (k >= bands[:, :1]) & (k <= bands[:, 1:])
    return (drawn * (scale[:, None] * inside)[..., None]).mT


def bend(images: Tensor, amplitudes: Tensor) -> Tensor:
    """Return clamp(x + sum_k amplitude_k sin(pi k x), 0, 1) for each value x of a channel.

    Hermite's cubic between at least 8 points a period, whose error is below 1e-4 of an amplitude:
    a sine for each value and frequency would be a hundred times the images' memory.

    Args:
        images: float32 [S, C, H, W].
        amplitudes: as `random_curves`.
    """
    rows, channels, highest = amplitudes.shape
    cells = 2 ** math.ceil(math.log2(8 * highest))
    values, slopes = _nodes(highest, cells, images.device)
    flat = amplitudes.reshape(rows * channels, highest)
    # Both at once, [S * C, cells + 1, 2]: a value's neighbours then lie side by side.
    nodes = torch.stack((flat @ values, flat @ slopes), dim=-1)
    x = images.flatten(2).flatten(0, 1)
    place = x.clamp(0, 1) * cells
    cell = place.floor().clamp(max=cells - 1)
    t = place - cell
    at = cell.long()[..., None].expand(-1, -1, 2)
    y0, d0 = nodes.gather(1, at).unbind(-1)
    y1, d1 = nodes.gather(1, at + 1).unbind(-1)
    rest = 1 - t
    curve = rest * rest * ((1 + 2 * t) * y0 + t * d0) + t * t * ((3 - 2 * t) * y1 - rest * d1)
    bent: Tensor = (x + curve).clamp(0, 1)
    return bent.view_as(images)


def _nodes(highest: int, cells: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return sin(pi k x) at the ends of the cells, [highest, cells + 1], and its slopes a cell."""
    k = torch.arange(1, highest + 1, device=device)[:, None]
    phase = k * torch.arange(cells + 1, device=device) % (2 * cells)  # exact: whole numbers
    angle = phase.to(widest_float(device)) * (math.pi / cells)
    slopes: Tensor = angle.cos() * (k * (math.pi / cells))
    return angle.sin().float(), slopes.float()


def random_kernels(keys: Tensor, scale: Tensor, size: int) -> Tensor:
    """Draw kernels, float32 [S, size, size]: `scale` [S] times normal numbers, plus a one.

    The one stands at (ceil(size / 2), ceil(size / 2)) as in the authors' code, which is one beyond
    the middle.
    """
    kernels = normals_by_word(keys, size * size).view(len(keys), size, size) * scale[:, None, None]
    delta = kernels.new_zeros(size, size)
    delta[(size + 1) // 2, (size + 1) // 2] = 1
    return kernels + delta


def filter_images(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate the channels of each image with its kernel, zero outside, clamped to [0, 1]."""
    size = kernels.shape[-1]
    padded = F.pad(images, [size // 2] * 4)
    height, width = images.shape[2:]
    result = torch.zeros_like(images)
    # Tap by tap rather than as a convolution of S groups, which is slow where S is large.
    for row in range(size):
        for column in range(size):
            window = padded[:, :, row : row + height, column : column + width]
            result.addcmul_(window, kernels[:, row, column, None, None, None])
    return result.clamp_(0, 1)


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
    drawn = normals_by_word(keys, 2 * rows * columns).view(len(keys), rows, columns, 2)
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
    angle = (places * modes % turns).to(widest_float(device))
    return angle.mul_(2 * math.pi / turns).sin_().float()


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
