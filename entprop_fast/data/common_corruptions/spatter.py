"""Drops of water or mud on the lens, the corruption with most steps: it has a file of its own.

The published water goes through OpenCV's Canny edges, distance transform, histogram equalisation
and small filters, on 8-bit layers. Here they run on whole batches; the distance is the exact
Euclidean one, OpenCV's an approximation of it within 2 %.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.data.common_corruptions.blur import mirrored
from entprop_fast.data.counter_random import packed_normals
from entprop_fast.data.filters import gaussian_blur as smooth

_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)
_LOW, _HIGH = 50, 150  # Canny's thresholds, in 8-bit levels
_FARTHEST = 20  # pixels to an edge: distances are cut there
_EDGE_GROWTH = 16  # pixels that a faint edge may go on from a strong one


def spatter(
    images: Tensor,
    keys: Tensor,
    mean: float,
    std: float,
    sigma: float,
    threshold: float,
    strength: float,
    mud: float,
) -> Tensor:
    """Smoothed noise above ``threshold`` is liquid: water shines at its edges, mud covers.

    ``strength`` is water's brightness, or the sigma of mud's soft edge.
    """
    count, _, height, width = images.shape
    noise = packed_normals(keys, height * width).view(count, 1, height, width)
    layer = _smooth(mean + std * noise, sigma)
    layer = layer.masked_fill_(layer < threshold, 0)
    if not mud:
        return images + strength * _gleam(layer).to(images.dtype) * _color(_WATER, images)
    cover = _smooth((layer > threshold).float(), strength)
    cover = cover.masked_fill_(cover < 0.8, 0).to(images.dtype)
    return torch.lerp(images, _color(_MUD, images).expand_as(images), cover)


def _smooth(layer: Tensor, sigma: float) -> Tensor:
    return smooth(layer, sigma, radius=math.floor(4 * sigma + 0.5))


def _color(rgb: tuple[float, float, float], like: Tensor) -> Tensor:
    values = torch.tensor(rgb, device=like.device, dtype=like.dtype)
    return (values if like.shape[1] == 3 else values.mean()).view(1, -1, 1, 1)


def _gleam(liquid: Tensor) -> Tensor:
    """Brightness of water ``[N, 1, H, W]``, at most 1: the liquid's, lit from its edges' side."""
    levels = (liquid * 255).clamp_(0, 255).floor_()
    distance = _distance(_edges(levels))
    distance = _mean3(distance).floor_()
    lit = _equalized(distance)
    weights = ((-2.0, -1.0, 0.0), (-1.0, 1.0, 1.0), (0.0, 1.0, 2.0))
    lit = _filtered(lit, weights).clamp_(0, 255)
    shine = levels * _mean3(lit).round_()
    return shine / shine.amax(dim=(2, 3), keepdim=True).clamp(min=1)  # nothing shines: 0


def _edges(levels: Tensor) -> Tensor:
    """Canny's edges of 8-bit levels: gradients by Sobel, thinned, faint ones only along strong."""
    padded = F.pad(levels, (1, 1, 1, 1), mode="replicate")
    gx = _taps(padded, ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)))
    gy = _taps(padded, ((-1, -2, -1), (0, 0, 0), (1, 2, 1)))
    size = gx.abs() + gy.abs()
    around = F.pad(size, (1, 1, 1, 1))

    def at(down: int, right: int) -> Tensor:
        height, width = size.shape[2:]
        return around[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    flat, steep = math.tan(math.radians(22.5)), math.tan(math.radians(67.5))
    across = gy.abs() < flat * gx.abs()
    upright = gy.abs() > steep * gx.abs()
    rising = (gx < 0) != (gy < 0)  # the gradient's diagonal
    along_x = (size > at(0, -1)) & (size >= at(0, 1))
    along_y = (size > at(-1, 0)) & (size >= at(1, 0))
    falling_diagonal = (size > at(-1, -1)) & (size > at(1, 1))
    rising_diagonal = (size > at(-1, 1)) & (size > at(1, -1))
    diagonal = torch.where(rising, rising_diagonal, falling_diagonal)
    thin = torch.where(across, along_x, torch.where(upright, along_y, diagonal))
    faint = thin & (size > _LOW)
    found = (thin & (size > _HIGH)).float()
    for _ in range(_EDGE_GROWTH):
        found = F.max_pool2d(found, 3, stride=1, padding=1) * faint
    return found > 0


def _distance(edges: Tensor) -> Tensor:
    """Euclidean distance to the nearest edge pixel, cut at `_FARTHEST`; exact, axis by axis."""
    squared = torch.where(edges, 0.0, float(_FARTHEST**2))
    for dim, pad in ((2, (0, 0, _FARTHEST, _FARTHEST)), (3, (_FARTHEST, _FARTHEST, 0, 0))):
        size = squared.shape[dim]
        padded = F.pad(squared, pad, value=float(_FARTHEST**2))
        for step in range(-_FARTHEST, _FARTHEST + 1):
            there = padded.narrow(dim, _FARTHEST + step, size)
            squared = torch.minimum(squared, there + step**2)
    return squared.sqrt()


def _equalized(levels: Tensor) -> Tensor:
    """OpenCV's histogram equalisation of whole levels up to `_FARTHEST`, to 0 ... 255."""
    kinds = torch.arange(_FARTHEST + 1, device=levels.device, dtype=levels.dtype)
    flat = levels.flatten(1)
    histogram = torch.stack([(flat == kind).sum(dim=1) for kind in kinds], dim=1)
    upto = histogram.cumsum(dim=1)
    # The lowest level in use becomes 0.
    lowest = torch.where(upto > 0, upto, flat.shape[1] + 1).amin(dim=1, keepdim=True)
    scale = 255 / (flat.shape[1] - lowest).clamp(min=1)
    table = ((upto - lowest).clamp(min=0) * scale).round()
    even = (lowest == flat.shape[1]).expand_as(table)  # one level alone stays as it is
    table = torch.where(even, kinds.expand_as(table), table)
    return table.gather(1, flat.long()).view_as(levels).to(levels.dtype)


def _mean3(layer: Tensor) -> Tensor:
    return _filtered(layer, ((1.0,) * 3,) * 3) / 9


def _filtered(layer: Tensor, weights: tuple[tuple[float, ...], ...]) -> Tensor:
    return _taps(mirrored(layer, 1), weights)


def _taps(padded: Tensor, weights: tuple[tuple[float, ...], ...]) -> Tensor:
    """A 3x3 correlation of a layer padded by 1, as a sum of shifted copies (see `filters`)."""
    height, width = padded.shape[2] - 2, padded.shape[3] - 2
    total = padded.new_zeros((*padded.shape[:2], height, width))
    for down, row in enumerate(weights):
        for right, weight in enumerate(row):
            if weight:
                total.add_(padded[:, :, down : down + height, right : right + width], alpha=weight)
    return total
