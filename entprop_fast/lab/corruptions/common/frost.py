"""Make frost on procedural textures: the published photographs are not in this package.

A texture is ice of three kinds: broad fields of it, thin crystals where a Gaussian field, stretched
to needles of many directions, crosses zero, and fine grain. It is then brought to the mean and
standard deviation of a published photograph, channel by channel, and its weights are such that
neighbouring pixels, and cuts of one photograph, differ as much as there. Its fields come from
filtered white noise, so its opposite sides fit together. Scores on it are no scores on the official
frost; every table says which it was.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from entprop_fast.counter_random import integers, keys_of, paired_normals
from entprop_fast.lab import stopping

# Red, green and blue of the photographs that the published code draws from, frost1.png to
# frost5.jpg (the third is the second again), in 8-bit levels: means, then standard deviations.
MOMENTS = (
    ((77.7, 149.1, 165.7), (26.9, 16.5, 15.3)),
    ((200.8, 205.4, 214.5), (21.4, 22.1, 22.6)),
    ((200.8, 205.4, 214.5), (21.4, 22.1, 22.6)),
    ((137.6, 152.8, 165.2), (28.5, 28.5, 29.9)),
    ((112.4, 123.4, 134.8), (44.4, 43.3, 41.7)),
)
TEXTURES = len(MOMENTS)
SIDE = 640  # pixels, a multiple of every `shrink`

_KEY = 0x1CE  # of the textures: the same ones for every seed, as photographs would be
_NEEDLES = 4  # directions of crystals
_FIELDS = 3 + _NEEDLES  # of noise, in a texture


def frost(images: Tensor, keys: Tensor, keep: float, ice: float, shrink: float) -> Tensor:
    """Mix ``keep x + ice t``: t a random cut of a random texture, ``shrink`` pixels to one."""
    channels, height, width = images.shape[1:]
    textures = _textures(int(shrink), images.device)
    side = textures.shape[2]
    which, top, left = integers(keys, (TEXTURES, side, side))
    y = (top[:, None] + torch.arange(height, device=images.device)) % side
    x = (left[:, None] + torch.arange(width, device=images.device)) % side
    cut = textures[which[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
    if channels != 3:
        cut = cut.mean(dim=1, keepdim=True)
    return keep * images + ice * cut.to(images.dtype)


@functools.lru_cache(maxsize=8)
def _textures(shrink: int, device: torch.device) -> Tensor:
    """Make ``[TEXTURES, 3, side, side]`` in [0, 1], on the CPU: all devices have the same.

    Every ``shrink``-th pixel, as OpenCV's bilinear reduction by an odd number takes them.
    """
    textures = torch.stack([_texture(number) for number in range(TEXTURES)])
    return textures[:, :, shrink // 2 :: shrink, shrink // 2 :: shrink].contiguous().to(device)


def _texture(number: int) -> Tensor:
    """Make whole 8-bit levels ``[3, SIDE, SIDE]``, in [0, 1], with `MOMENTS`."""
    stopping.check()  # half a second each
    keys = keys_of(_KEY, torch.arange(number * _FIELDS, (number + 1) * _FIELDS))
    noise = paired_normals(keys, SIDE * SIDE).view(-1, SIDE, SIDE).double()
    frequency = torch.fft.fftfreq(SIDE, dtype=torch.float64)
    fy, fx = frequency[:, None], frequency[None, :]
    veil = _filtered(noise[0], fy, fx, along=160, across=160)
    fields = _filtered(noise[1], fy, fx, along=48, across=48)
    grain = _filtered(noise[2], fy, fx, along=2, across=2)
    crystals = torch.zeros_like(veil)
    for needle in range(_NEEDLES):
        turn = math.pi * (needle + 0.37 * number) / _NEEDLES
        u, v = fx * math.cos(turn) + fy * math.sin(turn), fy * math.cos(turn) - fx * math.sin(turn)
        field = _filtered(noise[3 + needle], v, u, along=26, across=3)
        crystals = torch.maximum(crystals, torch.exp(-((field / 0.28) ** 2)))
    ice = 0.08 * veil + 0.08 * fields + 0.45 * crystals * torch.sigmoid(2 * fields + 0.6)
    ice = _standard(_standard(ice) + 0.4 * grain)
    means, stds = torch.tensor(MOMENTS[number], dtype=torch.float64)[:, :, None, None]
    levels: Tensor = (means + stds * ice).round_().clamp_(0, 255)
    return levels.float().div_(255)


def _filtered(noise: Tensor, fy: Tensor, fx: Tensor, *, along: float, across: float) -> Tensor:
    """Smooth white noise to those lengths in pixels: mean 0, variance 1, periodic."""
    shape = torch.exp(-2 * math.pi**2 * ((fx * along) ** 2 + (fy * across) ** 2) / 4)
    field: Tensor = torch.fft.ifft2(torch.fft.fft2(noise) * shape).real
    return _standard(field)


def _standard(field: Tensor) -> Tensor:
    return (field - field.mean()) / field.std()
