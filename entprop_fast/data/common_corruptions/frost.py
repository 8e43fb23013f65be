"""Frost, on procedural textures: the photographs of the published code are not in this package.

A texture is ice of two kinds over a soft veil: broad fields of it, and thin crystals where a
Gaussian field, stretched to needles of many directions, crosses zero. Its fields come from filtered
white noise, so its opposite sides fit together. Scores on it are no scores on the official frost;
every table says which it was.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.data.counter_random import integers, keys_of, packed_normals

TEXTURES = 5  # as many as the published code draws from
SIDE = 640  # pixels, a multiple of every `shrink`

_KEY = 0x1CE  # of the textures: the same ones for every seed, as photographs would be
_NEEDLES = 4  # directions of crystals
_BLUISH = (0.82, 0.92, 1.0)


def frost(images: Tensor, keys: Tensor, keep: float, ice: float, shrink: float) -> Tensor:
    """``keep x + ice t``, t a random cut of a random texture, ``shrink`` of its pixels to one."""
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
    """``[TEXTURES, 3, side, side]`` in [0, 1]; made on the CPU, so all devices have the same."""
    textures = torch.stack([_texture(number) for number in range(TEXTURES)])
    return F.avg_pool2d(textures, shrink).to(device)


def _texture(number: int) -> Tensor:
    keys = keys_of(_KEY, torch.arange(number * (_NEEDLES + 2), (number + 1) * (_NEEDLES + 2)))
    noise = packed_normals(keys, SIDE * SIDE).view(-1, SIDE, SIDE).double()
    frequency = torch.fft.fftfreq(SIDE, dtype=torch.float64)
    fy, fx = frequency[:, None], frequency[None, :]
    fields = _filtered(noise[0], fy, fx, along=48, across=48)
    veil = _filtered(noise[1], fy, fx, along=160, across=160)
    crystals = torch.zeros_like(veil)
    for needle in range(_NEEDLES):
        turn = math.pi * (needle + 0.37 * number) / _NEEDLES
        u, v = fx * math.cos(turn) + fy * math.sin(turn), fy * math.cos(turn) - fx * math.sin(turn)
        field = _filtered(noise[2 + needle], v, u, along=26, across=5)
        crystals = torch.maximum(crystals, torch.exp(-((field / 0.28) ** 2)))
    ice = 0.30 + 0.12 * veil + 0.16 * fields + 0.45 * crystals * torch.sigmoid(2 * fields + 0.6)
    return torch.stack([(tint * ice).clamp(0, 1) for tint in _BLUISH]).float()


def _filtered(noise: Tensor, fy: Tensor, fx: Tensor, *, along: float, across: float) -> Tensor:
    """White noise smoothed to those lengths in pixels, mean 0 and variance 1, periodic."""
    shape = torch.exp(-2 * math.pi**2 * ((fx * along) ** 2 + (fy * across) ** 2) / 4)
    field: Tensor = torch.fft.ifft2(torch.fft.fft2(noise) * shape).real
    field = field - field.mean()
    return field / field.std()
