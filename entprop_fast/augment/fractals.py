"""Make fractal pictures to mix with, from a seed: no download.

Each picture is a flame of an iterated function system over an escape-time picture of a quadratic
Julia set, both in colours of a cosine palette. Systems are drawn as in Anderson and Farrell,
"Improving Fractal Pre-training" (WACV 2022), by the singular values of their maps, so that they
neither shrink to a point nor blur; points are coloured and their density shown by its logarithm as
in Draves and Reckase, "The Fractal Flame Algorithm" (2003). PixMix's own set is fractals that
people posted in colour, and feature visualisations (1.6 GB); IPMix (Huang et al., NeurIPS 2023)
finds that the choice of set hardly matters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from entprop_fast.counter_random import bits, fold, keys_of, uniforms

VERSION = 1  # of the pictures: a cached file of another one has another name
_FRACTALS = 2  # the stream of these draws
_MAPS = 6  # at most, of a system; at least two
_WALKERS = 512  # points of a picture that move at once
_DENSITY = 10  # points for each pixel
_BURN_IN = 12  # steps until a point lies on the attractor
_ESCAPE = 40  # steps of a Julia set
_AT_ONCE = 8  # pictures: what they need stays in a processor's cache
_SAMPLES = 2  # a side of each pixel

# Streams of one picture.
_SHAPE, _START, _WALK, _JULIA, _COLOR = range(5)


def make_fractals(
    count: int, size: int, seed: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw pictures; each is a function of the seed and its number alone.

    Args:
        count: of pictures.
        size: height and width in pixels.
        seed: of all draws.
        device: that computes; pictures of two kinds of device differ by rounding.

    Returns:
        uint8 ``[count, 3, size, size]`` on the device.

    Raises:
        ValueError: a count or a size that is not positive.
    """
    for name, value in (("count", count), ("size", size)):
        if value < 1:
            raise ValueError(f"{name}={value!r}: expected at least 1")
    parts = []
    for first in range(0, count, _AT_ONCE):
        # The last part is made whole: a vector's odd end would round another way.
        numbers = torch.arange(first, first + _AT_ONCE, device=device)
        parts.append(_pictures(keys_of(fold((seed, _FRACTALS)), numbers), size))
    return torch.cat(parts)[:count].contiguous()


def _pictures(keys: Tensor, size: int) -> Tensor:
    side = _SAMPLES * size
    u = uniforms(keys_of(_COLOR, keys), 16)
    ground = _palette(_julia(keys, side), u[:, :7])
    density, tone = _flame(keys, side)
    flame = _palette(tone, u[:, 7:14])
    strength = (0.3 + 0.7 * u[:, 14, None, None, None]) * density[:, None]
    mixed = torch.lerp(ground, flame, strength)
    mixed = functional.avg_pool2d(mixed, _SAMPLES)
    return (mixed * 255 + 0.5).to(torch.uint8)


def _palette(tone: Tensor, u: Tensor) -> Tensor:
    """Return colours ``[B, 3, H, W]`` of tones: a cosine of its own phase for each channel."""
    turns = 0.5 + 1.5 * u[:, 0, None, None, None]
    phases = u[:, 1:4, None, None]
    depth = 0.25 + 0.25 * u[:, 4:7, None, None]
    middle = 0.5 + (0.5 - depth) * (2 * phases - 1)
    return middle + depth * (2 * math.pi * (turns * tone[:, None] + phases)).cos()


def _julia(keys: Tensor, side: int) -> Tensor:
    """Return a tone for each pixel, ``[B, side, side]``: how soon z -> z^2 + c leaves."""
    u = uniforms(keys_of(_JULIA, keys), 6)[:, :, None, None]
    angle, turn = 2 * math.pi * u[:, 0], 2 * math.pi * u[:, 1]
    # Just outside of the Mandelbrot set's cardioid, where Julia sets have the finest structure.
    reach = 1 + 0.15 * u[:, 2]
    real = reach * (angle.cos() / 2 - (2 * angle).cos() / 4)
    imaginary = reach * (angle.sin() / 2 - (2 * angle).sin() / 4)
    line = torch.linspace(-1, 1, side, dtype=torch.float32, device=keys.device)
    zoom = 0.25 + u[:, 3]
    x, y = line[None, None, :] * zoom, line[None, :, None] * zoom
    x, y = (
        x * turn.cos() - y * turn.sin() + u[:, 4] - 0.5,
        x * turn.sin() + y * turn.cos() + u[:, 5] - 0.5,
    )
    tone = torch.zeros_like(x)
    xx, yy = x * x, y * y
    for _ in range(_ESCAPE):
        # Bounded: what has left stays far away, and adds nothing.
        y = (x * y).mul_(2).add_(imaginary).clamp_(-99, 99)
        x = (xx - yy).add_(real).clamp_(-99, 99)
        torch.mul(x, x, out=xx)
        torch.mul(y, y, out=yy)
        tone += (xx + yy).square_().add_(1).reciprocal_()
    return tone.log1p_()


def _flame(keys: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return density in [0, 1] and tone in [0, 1] of each pixel, ``[B, side, side]`` each."""
    count, device = len(keys), keys.device
    table = _system(keys)  # [B * 256, 7]: the map that a random byte stands for
    steps = _BURN_IN + -(-_DENSITY * (side // _SAMPLES) ** 2 // _WALKERS)
    first = torch.arange(count, device=device)[:, None] * 256
    start = uniforms(keys_of(_START, keys), 3 * _WALKERS).view(count, 3, _WALKERS)
    x, y, tone = start.unbind(1)
    words = _WALKERS * -(-steps // 8)
    walk = bits(keys_of(_WALK, keys), words).view(torch.uint8).view(count, -1, _WALKERS)
    path = []
    for step in range(steps):
        chosen = table.index_select(0, (first + walk[:, step]).view(-1))
        a, b, c, d, e, f, color = chosen.view(count, _WALKERS, 7).unbind(2)
        x, y, tone = a * x + b * y + e, c * x + d * y + f, (tone + color) / 2
        if step >= _BURN_IN:
            path.append(torch.stack((x, y, tone), 1))
    points = torch.cat(path, 2)  # [B, 3, points]
    return _histogram(points, side)


def _histogram(points: Tensor, side: int) -> tuple[Tensor, Tensor]:
    place, tone = points[:, :2], points[:, 2]
    sample = place[:, :, :2048]
    low, high = sample.quantile(0.02, 2, keepdim=True), sample.quantile(0.98, 2, keepdim=True)
    cell = ((place - low) / (high - low).clamp(min=1e-6) * side).floor_()
    inside = ((cell >= 0) & (cell < side)).all(1)
    cell = cell.clamp_(0, side - 1).long()
    flat = cell[:, 1] * side + cell[:, 0]
    # Whole numbers, whose sums have no order: the count, and below it the sum of tones.
    value = ((tone * 1023).long() + (1 << 40)) * inside
    sums = torch.zeros(len(points), side * side, dtype=torch.int64, device=points.device)
    sums.scatter_add_(1, flat, value)
    hits = (sums >> 40).float()
    tone = (sums & ((1 << 40) - 1)).float() / 1023 / hits.clamp(min=1)
    density = hits.log1p() / hits.amax(1, keepdim=True).log1p().clamp(min=1e-6)
    shape = (len(points), side, side)
    return density.sqrt().view(shape), tone.view(shape)


def _system(keys: Tensor) -> Tensor:
    """Draw systems of two to six affine maps, ``[B * 256, 7]``: a map for each random byte.

    Columns are a, b, c, d, e, f of (x, y) -> (a x + b y + e, c x + d y + f), and a tone.
    """
    count = len(keys)
    u = uniforms(keys_of(_SHAPE, keys), 2 + 9 * _MAPS)
    maps = 2 + (u[:, 0] * (_MAPS - 1)).floor()
    v = u[:, 2:].view(count, _MAPS, 9)
    major, minor = _singular_values(maps, u[:, 1], v[..., 0], v[..., 1])
    one, two = (2 * math.pi * v[..., 2]), (2 * math.pi * v[..., 3])
    # R(one) diag(major, minor) R(two) diag(+-1, +-1)
    left, right = ((v[..., k] > 0.5).to(v.dtype) * 2 - 1 for k in (4, 5))
    a = (one.cos() * major * two.cos() - one.sin() * minor * two.sin()) * left
    b = (-one.cos() * major * two.sin() - one.sin() * minor * two.cos()) * right
    c = (one.sin() * major * two.cos() + one.cos() * minor * two.sin()) * left
    d = (-one.sin() * major * two.sin() + one.cos() * minor * two.cos()) * right
    table = torch.stack((a, b, c, d, 2 * v[..., 6] - 1, 2 * v[..., 7] - 1, v[..., 8]), 2)
    there = torch.arange(_MAPS, device=keys.device) < maps[:, None]
    share = ((a * d - b * c).abs() + 0.02) * there  # by area: every part gets its points
    bounds = (share / share.sum(1, keepdim=True)).cumsum(1)
    byte = (torch.arange(256, dtype=torch.float32, device=keys.device) + 0.5) / 256
    chosen = (byte[None, :, None] > bounds[:, None, :-1]).sum(2).clamp(max=_MAPS - 1)  # [B, 256]
    return table.gather(1, chosen[..., None].expand(-1, -1, 7)).view(-1, 7)


def _singular_values(
    maps: Tensor, total: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw each map's, ``[B, maps]`` each: the sum of major + 2 minor is in (n + 5, n + 6) / 2.

    Algorithm 2 of Anderson and Farrell: one value after the other, each within what those to come
    leave possible.
    """
    upper = (5 + maps + total) / 2
    lower = upper - 3 * maps + 3
    majors, minors = [], []
    for k in range(_MAPS):
        last = maps - 1 == k
        low, high = (lower / 3).clamp(0, 1), upper.clamp(0, 1)
        major = low + (high - low) * first[:, k]
        low = ((lower - major) / 2).clamp(min=0)
        high = torch.minimum(major, (upper - major) / 2).clamp(min=0)
        minor = low + (high - low).clamp(min=0) * second[:, k]
        low, high = ((upper - 1) / 2).clamp(min=0), upper / 3
        minor = torch.where(last, low + (high - low) * second[:, k], minor)
        major = torch.where(last, upper - 2 * minor, major)
        majors.append(major)
        minors.append(minor)
        taken = major + 2 * minor
        upper, lower = upper - taken, lower - taken + 3
    return torch.stack(majors, 1), torch.stack(minors, 1)
