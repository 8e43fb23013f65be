"""Put drops of water or mud on the lens, the corruption with most steps.

The published water goes through OpenCV's Canny edges, distance transform, histogram equalisation
and small filters, on 8-bit layers. Here they run on whole batches, in the smallest integers that
hold them, with OpenCV's distance: up to 2 % shorter than Euclid's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.counter_random import paired_normals
from entprop_fast.lab.corruptions.common.blur import mirrored
from entprop_fast.lab.corruptions.filters import gaussian_blur as smooth

_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)
_LOW, _HIGH = 50, 150  # Canny's thresholds, in 8-bit levels
_FARTHEST = 20  # pixels to an edge: distances are cut there
_UNIT = 1000  # of the distances in int16
# OpenCV's 5x5 distances: a straight step is 1, a diagonal one 1.4, a knight's move 2.1969. The
# shortest way is the longest of these sums, (weight of across, weight of down), each of which is so
# from the third number times `down` on.
_WAYS = (
    (1.0, 0.1969, 2.1969),
    (0.7969, 0.6031, 1.4),
    (0.6031, 0.7969, 1.09845),
    (0.1969, 1.0, 1.0),
)
_LIGHT = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))  # from the upper left
_ROUNDING = 0.05  # of such a unit: a mean of nine is a multiple of 1 / 9


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
    """Take smoothed noise above ``threshold`` for liquid: water shines at its edges, mud covers.

    ``strength`` is water's brightness, or the sigma of mud's soft edge.
    """
    count, _, height, width = images.shape
    noise = paired_normals(keys, height * width).view(count, 1, height, width)
    layer = _smooth(mean + std * noise, sigma)
    layer = F.threshold(layer, threshold, 0, inplace=True)
    if not mud:
        return images + strength * _gleam(layer).to(images.dtype) * _color(_WATER, images)
    cover = _smooth((layer > threshold).float(), strength)
    cover = F.threshold(cover, 0.8, 0, inplace=True).to(images.dtype)
    return torch.lerp(images, _color(_MUD, images).expand_as(images), cover)


def _smooth(layer: Tensor, sigma: float) -> Tensor:
    return smooth(layer, sigma, radius=math.floor(4 * sigma + 0.5))


def _color(rgb: tuple[float, float, float], like: Tensor) -> Tensor:
    values = torch.tensor(rgb, device=like.device, dtype=like.dtype)
    return (values if like.shape[1] == 3 else values.mean()).view(1, -1, 1, 1)


def _gleam(liquid: Tensor) -> Tensor:
    """Return the brightness of water ``[N, 1, H, W]``, at most 1: lit from its edges' side."""
    levels = (liquid * 255).floor_().remainder_(256)  # bytes, which wrap round above white
    distance = _distance(_edges(levels.to(torch.int16))).float()
    near = _mean3(distance).add_(_ROUNDING).div_(_UNIT).floor_()
    lit = _filtered(_equalized(near), _LIGHT).clamp_(0, 255)
    shine = levels.mul_(_mean3(lit).round_())
    return shine.div_(shine.amax(dim=(2, 3), keepdim=True).clamp(min=1))  # nothing shines: 0


def _edges(levels: Tensor) -> Tensor:
    """Find Canny's edges of int16 levels: Sobel's gradients, thinned, faint ones along strong.

    uint8, 255 where there is one. Conditions are integers with all bits set or none: torch's
    comparisons and `where` take up to fifty times as long.
    """
    padded = F.pad(levels.float(), (1, 1, 1, 1), mode="replicate").to(levels.dtype)
    gx = _taps(padded, ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)))
    gy = _taps(padded, ((-1, -2, -1), (0, 0, 0), (1, 2, 1)))
    across, down = gx.abs(), gy.abs()
    size = across + down
    around = F.pad(size, (1, 1, 1, 1))

    def above(y: int, x: int) -> Tensor:
        return _less(_beside(around, y, x), size)

    def not_below(y: int, x: int) -> Tensor:
        return _less(size, _beside(around, y, x)).bitwise_not_()

    along_x = above(0, -1).bitwise_and_(not_below(0, 1))
    along_y = above(-1, 0).bitwise_and_(not_below(1, 0))
    falling = above(-1, -1).bitwise_and_(above(1, 1))
    rising = above(-1, 1).bitwise_and_(above(1, -1))
    thin = _either(_less(gx ^ gy, 0), rising, falling)
    # Steeper than 67.5 degrees, and flatter than 22.5, in the fixed point of OpenCV.
    across, down = across.int(), down.int() << 15
    low = across * round(math.tan(math.pi / 8) * (1 << 15))
    thin = _either(_less(low + (across << 16), down).to(thin.dtype), along_y, thin)
    thin = _either(_less(down, low).to(thin.dtype), along_x, thin)
    faint = _less(_LOW, size).bitwise_and_(thin).to(torch.uint8)
    found = _less(_HIGH, size).bitwise_and_(thin).to(torch.uint8)
    while True:  # a strong edge goes on along faint ones
        before = found
        for dim in (2, 3):
            grown, whole = found.clone(), found.shape[dim] - 1
            grown.narrow(dim, 1, whole).bitwise_or_(found.narrow(dim, 0, whole))
            grown.narrow(dim, 0, whole).bitwise_or_(found.narrow(dim, 1, whole))
            found = grown
        found.bitwise_and_(faint)
        if torch.equal(found, before):
            return found


def _less(one: Tensor | int, other: Tensor | int) -> Tensor:
    """Set all bits where ``one`` is less than ``other``, integers that are far from overflow."""
    difference = torch.as_tensor(one - other)
    return difference >> (8 * difference.element_size() - 1)


def _either(condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return (one ^ other).bitwise_and_(condition).bitwise_xor_(other)


def _beside(padded: Tensor, down: int, right: int) -> Tensor:
    """Find what is beside each pixel of a layer padded by 1."""
    height, width = padded.shape[2] - 2, padded.shape[3] - 2
    return padded[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _distance(edges: Tensor) -> Tensor:
    """Measure to the nearest edge pixel, int16 in 1 / `_UNIT` pixels, cut at `_FARTHEST`.

    First along each row, then from the nearest of each row within reach.
    """
    in_row, height = _in_row(edges), edges.shape[2]
    nearest = in_row * _UNIT
    rows = F.pad(in_row, (0, 0, _FARTHEST, _FARTHEST), value=_FARTHEST)
    ways = [
        (rows * round(_UNIT * across), round(_UNIT * down), first) for across, down, first in _WAYS
    ]
    for step in range(1, _FARTHEST + 1):
        length: Tensor | None = None
        for across, down, first in ways:
            if step * first > _FARTHEST:
                continue
            one = torch.minimum(
                across.narrow(2, _FARTHEST - step, height),
                across.narrow(2, _FARTHEST + step, height),
            ).add_(step * down)
            length = one if length is None else torch.maximum(length, one, out=length)
        assert length is not None
        torch.minimum(nearest, length, out=nearest)
    return nearest.clamp_(max=_FARTHEST * _UNIT)


def _in_row(edges: Tensor) -> Tensor:
    """Measure whole pixels to the nearest edge of the same row, int16, cut at `_FARTHEST`."""
    far = (edges.to(torch.int16) >> 7).bitwise_xor_(1).mul_(_FARTHEST)
    # By doubling: after steps of 1, 2, 4, ... the nearest of all within their sum is known.
    step = 1
    while step <= _FARTHEST:
        padded = F.pad(far, (step, step), value=_FARTHEST)
        sides = (padded.narrow(3, place, far.shape[3]) for place in (0, 2 * step))
        far = torch.minimum(far, torch.minimum(*sides).add_(step))
        step *= 2
    return far


def _equalized(levels: Tensor) -> Tensor:
    """Equalise whole levels up to `_FARTHEST` as OpenCV does, to 0 ... 255."""
    kinds = torch.arange(_FARTHEST + 1, device=levels.device, dtype=levels.dtype)
    flat = levels.flatten(1).long()
    histogram = torch.zeros(len(flat), len(kinds), dtype=torch.long, device=flat.device)
    histogram.scatter_add_(1, flat, torch.ones_like(flat))
    upto = histogram.cumsum(dim=1)
    # The lowest level in use becomes 0.
    lowest = torch.where(upto > 0, upto, flat.shape[1] + 1).amin(dim=1, keepdim=True)
    scale = 255 / (flat.shape[1] - lowest).clamp(min=1)
    table = ((upto - lowest).clamp(min=0) * scale).round()
    even = (lowest == flat.shape[1]).expand_as(table)  # one level alone stays as it is
    table = torch.where(even, kinds.expand_as(table), table)
    return table.gather(1, flat).view_as(levels).to(levels.dtype)


def _mean3(layer: Tensor) -> Tensor:
    padded = mirrored(layer, 1)
    for dim in (2, 3):
        size = layer.shape[dim]
        first, second, third = (padded.narrow(dim, place, size) for place in range(3))
        padded = (first + second).add_(third)
    return padded.div_(9)


def _filtered(layer: Tensor, weights: tuple[tuple[int, ...], ...]) -> Tensor:
    return _taps(mirrored(layer, 1), weights)


def _taps(padded: Tensor, weights: tuple[tuple[int, ...], ...]) -> Tensor:
    """Correlate a layer padded by 1 with 3x3 weights: a sum of shifted copies (see `filters`)."""
    total = torch.zeros_like(_beside(padded, 0, 0))
    for down, row in enumerate(weights):
        for right, weight in enumerate(row):
            if weight:
                total.add_(_beside(padded, down - 1, right - 1), alpha=weight)
    return total
