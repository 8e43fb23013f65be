"""Corrupt any batch of [0, 1] images in ten seeded ways at five severities.

Spatial strengths are fractions of the image, so 8x8 and 224x224 images are hurt alike. The
strengths were set on digits with vanilla training alone (WRN-10 of width 0.5, 200 images): each
kind goes from mild to hard, and no other method was looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from entprop_fast.counter_random import fold, normals, row_keys, uniforms
from entprop_fast.devices import widest_float
from entprop_fast.lab.corruptions.filters import gaussian_blur, pixel_grid, rotate, shift, warp
from entprop_fast.methods.batch_checks import RANGE_TOLERANCE
from entprop_fast.name_errors import unknown

SEVERITIES = (1, 2, 3, 4, 5)

_ELASTIC_SMOOTHING = 0.125


def _gaussian(images: Tensor, std: float, keys: Tensor) -> Tensor:
    noise = normals(keys, images[0].numel()).view(images.shape)
    return images + std * noise


def _impulse(images: Tensor, fraction: float, keys: Tensor) -> Tensor:
    """Make that fraction of the values 0 or 1, evenly: salt and pepper."""
    u = uniforms(keys, images[0].numel()).view(images.shape)
    salted = images.masked_fill(u < fraction, 1)
    return salted.masked_fill(u < fraction / 2, 0)


def _blur(images: Tensor, sigma: float, keys: Tensor) -> Tensor:
    """Smooth by ``sigma``, a fraction of the shorter side."""
    return gaussian_blur(images, sigma * min(images.shape[2:]))


def _contrast(images: Tensor, factor: float, keys: Tensor) -> Tensor:
    """Scale each channel's distance from its own mean by ``factor``."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean + factor * (images - mean)


def _brightness(images: Tensor, offset: float, keys: Tensor) -> Tensor:
    return images + offset


def _rotate(images: Tensor, degrees: float, keys: Tensor) -> Tensor:
    """Rotate about the centre, either way round."""
    sign = torch.where(uniforms(keys, 1) < 0.5, -1.0, 1.0).to(images.dtype)
    return rotate(images, sign[:, 0] * math.radians(degrees))


def _shift(images: Tensor, fraction: float, keys: Tensor) -> Tensor:
    """Shift by that fraction of the size, in any direction."""
    height, width = images.shape[2:]
    angle = 2 * math.pi * uniforms(keys, 1)[:, 0].to(images.dtype)
    return shift(images, fraction * width * angle.cos(), fraction * height * angle.sin())


def _occlude(images: Tensor, fraction: float, keys: Tensor) -> Tensor:
    """Lay a grey rectangle of ``fraction`` of each side, wholly inside, at any place."""
    place = uniforms(keys, 2).to(images.dtype)
    height, width = images.shape[2:]
    x, y = pixel_grid(images)
    left = (1 - fraction) * width * place[:, 0].view(-1, 1, 1)
    top = (1 - fraction) * height * place[:, 1].view(-1, 1, 1)
    cover = _cover(x, left, fraction * width) * _cover(y, top, fraction * height)
    return torch.lerp(images, torch.full_like(images, 0.5), cover[:, None])


def _pixelate(images: Tensor, fraction: float, keys: Tensor) -> Tensor:
    """Average over a grid of ``fraction`` of each side's pixels (at least 1), then enlarge.

    Both ways by area, so that cells whose edges cut through pixels do not move the picture.
    """
    down_y, up_y = _area_resampling(images.shape[2], fraction, images)
    down_x, up_x = _area_resampling(images.shape[3], fraction, images)
    # In float64, because a GPU may run a float32 product in TF32.
    wide = images.to(down_y.dtype)
    return (up_y @ (down_y @ wide @ down_x.mT) @ up_x.mT).to(images.dtype)


def _area_resampling(side: int, fraction: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Map pixels to cells ``[cells, side]`` and back ``[side, cells]``; rows sum to 1."""
    cells = max(1, math.floor(fraction * side + 0.5))
    length = side / cells
    wide = widest_float(like.device)
    pixel = torch.arange(side, device=like.device, dtype=wide)
    start = torch.arange(cells, device=like.device, dtype=wide) * length
    cover = _cover(pixel, start[:, None], length)
    return cover / length, cover.mT


def _cover(pixel: Tensor, start: Tensor, length: float) -> Tensor:
    """Return how much of each cell ``[pixel, pixel + 1]`` lies in ``[start, start + length]``."""
    overlap = torch.minimum(pixel + 1, start + length) - torch.maximum(pixel, start)
    return overlap.clamp(min=0)


def _elastic(images: Tensor, amplitude: float, keys: Tensor) -> Tensor:
    """Smooth random displacement, ``amplitude`` times the shorter side in root mean square."""
    height, width = images.shape[2:]
    side = min(height, width)
    noise = normals(keys, 2 * height * width).view(-1, 2, height, width).to(images.dtype)
    # Wrapped round, white noise stays equally strong everywhere; repeated edges would be stronger.
    field = gaussian_blur(noise, _ELASTIC_SMOOTHING * side, edges="circular")
    rms = field.square().sum(dim=1).mean(dim=(1, 2)).sqrt().view(-1, 1, 1, 1)
    field = field * (amplitude * side / rms)
    x, y = pixel_grid(images)
    return warp(images, x + field[:, 0], y + field[:, 1])


@dataclass(frozen=True)
class _Kind:
    apply: Callable[[Tensor, float, Tensor], Tensor]
    strengths: tuple[float, float, float, float, float]


_KINDS = {
    "gaussian": _Kind(_gaussian, (0.1, 0.2, 0.3, 0.4, 0.55)),
    "impulse": _Kind(_impulse, (0.04, 0.1, 0.17, 0.25, 0.35)),
    "blur": _Kind(_blur, (0.07, 0.09, 0.11, 0.14, 0.18)),
    "contrast": _Kind(_contrast, (0.6, 0.45, 0.3, 0.2, 0.1)),
    "brightness": _Kind(_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "rotate": _Kind(_rotate, (8, 16, 24, 32, 40)),
    "shift": _Kind(_shift, (0.04, 0.08, 0.12, 0.16, 0.2)),
    "occlude": _Kind(_occlude, (0.25, 0.35, 0.45, 0.55, 0.65)),
    "pixelate": _Kind(_pixelate, (0.875, 0.75, 0.625, 0.5, 0.375)),
    "elastic": _Kind(_elastic, (0.03, 0.05, 0.075, 0.1, 0.13)),
}

CORRUPTIONS: tuple[str, ...] = tuple(_KINDS)


def corrupt(images: Tensor, kind: str, severity: int, *, seed: int = 0, first: int = 0) -> Tensor:
    """Corrupt images, clipped to [0, 1]: same dtype, device and memory format.

    An image's draws depend on ``(seed, kind, severity, its index)`` alone, so the result depends
    neither on the batch it sits in nor on the device (up to the device's rounding).

    Args:
        images: floating, ``[N, C, H, W]``, values in [0, 1].
        kind: one of ``CORRUPTIONS``.
        severity: 1 (mild) to 5 (hard).
        seed: any integer.
        first: index of ``images[0]`` in its data set.

    Raises:
        ValueError: unknown kind, severity outside 1..5, not 4-D, a negative ``first``, and, on the
            CPU alone (it would synchronise a GPU), values outside [0, 1].
        TypeError: images that are not floating.
    """
    if kind not in _KINDS:
        raise unknown("corruption", kind, CORRUPTIONS)
    check_severity(severity)
    check_images(images, first)
    out = torch.empty_like(images)
    if images.numel() == 0:
        return out
    key = fold((seed, CORRUPTIONS.index(kind), severity))
    keys = row_keys(key, first, len(images), images.device)
    chosen = _KINDS[kind]
    # Half precision could not even count the pixels of a large image.
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    corrupted = chosen.apply(wide, chosen.strengths[severity - 1], keys)
    return out.copy_(corrupted.clamp_(0, 1))


def check_severity(severity: int) -> None:
    """Raise ``ValueError`` unless the severity is one of ``SEVERITIES``."""
    if type(severity) is not int or severity not in SEVERITIES:
        raise ValueError(f"severity = {severity!r} must be one of {SEVERITIES}")


def check_images(images: Tensor, first: int, *, levels: bool = False) -> None:
    """Refuse what no corruption takes, see `corrupt`; with ``levels``, uint8 images are fine."""
    if first < 0:
        raise ValueError(f"first = {first} must be the index of an image, 0 or more")
    whole = levels and images.dtype == torch.uint8
    if not (whole or images.is_floating_point()):
        raise TypeError(f"images are {images.dtype}; a floating dtype with values in [0, 1] wanted")
    if images.ndim != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}; [N, C, H, W] wanted")
    if images.device.type == "cpu" and images.numel() and not whole:
        low, high = float(images.amin()), float(images.amax())  # quicker than `aminmax`
        if not (-RANGE_TOLERANCE <= low and high <= 1 + RANGE_TOLERANCE):
            raise ValueError(f"images hold values in [{low:g}, {high:g}]; [0, 1] wanted")
