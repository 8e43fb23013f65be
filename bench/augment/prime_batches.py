"""Describe PRIME as its authors run it: whole batches, each primitive for every image.

From github.com/amodas/PRIME-augmentations, whose train.py draws the strengths of each primitive
anew at each call (``stochastic=True``), on the host; a mask then keeps one primitive of each image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Beta, Dirichlet

_ARCSINE = Beta(0.5, 0.5)


def prime(images: Tensor) -> Tensor:
    """Augment floating images [B, C, n, n] in [0, 1] with the settings for CIFAR."""
    count = len(images)
    weights = Dirichlet(torch.ones(3)).sample(torch.Size([count]))
    mixed = torch.rand(count)[:, None, None, None]
    chains = images.repeat(3, 1, 1, 1)
    depths = torch.tril(torch.ones(3, 3))[torch.randint(3, (3 * count,))]
    for place in range(3):
        wanted = F.one_hot(torch.randint(3, (3 * count,)), 3)[:, :, None, None, None]
        done = _warp(chains) * wanted[:, 0]
        done = done + _color(chains) * wanted[:, 1] + _filter(chains) * wanted[:, 2]
        used = depths[:, place, None, None, None]
        chains = used * done + (1 - used) * chains
    mixture = torch.einsum("bm,mbchw->bchw", weights, chains.unflatten(0, (3, count)))
    return (1 - mixed) * images + mixed * mixture


def _between(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (1,)))


def _field(pixels: int, cut: int) -> Tensor:
    k = torch.arange(1.0, cut + 1)
    radius = (k[:, None].square() + k.square()).sqrt()
    waves = (math.pi * torch.linspace(0, 1, pixels)[:, None] * k).sin()
    modes = torch.randn(cut, cut) * (radius < cut + 0.5) / radius
    return torch.einsum("ij,xi,yj->yx", modes, waves, waves)


def _warp(images: Tensor) -> Tensor:
    pixels = images.shape[-1]
    cut = int(_ARCSINE.sample() * (_between(3, 100) + 1 - 2) + 2)
    low = 1 / (math.pi * pixels**2 * math.log(cut + 1e-6))
    high = max(low, 4 / (math.pi**3 * cut**2 * math.log(cut + 1e-6)))
    scale = (_ARCSINE.sample() * (high - low) + low).sqrt() * pixels
    places = torch.arange(float(pixels))
    x = (places - scale * _field(pixels, cut)).clamp(0, pixels - 1)
    y = (places[:, None] - scale * _field(pixels, cut)).clamp(0, pixels - 1)
    x0, x1, y0, y1 = x.floor().long(), x.ceil().long(), y.floor().long(), y.ceil().long()
    tx, ty = x - x0, y - y0
    upper = (1 - tx) * images[..., y0, x0] + tx * images[..., y0, x1]
    return (1 - ty) * upper + ty * ((1 - tx) * images[..., y1, x0] + tx * images[..., y1, x1])


def _color(images: Tensor) -> Tensor:
    k = torch.arange(1, _between(1, 100) + 1)
    values = images.flatten(2)
    amplitudes = torch.randn(*images.shape[:2], len(k)) * (0.01 * torch.rand(())).sqrt()
    sines = (values[..., None] * k * math.pi).sin()
    bent = torch.einsum("bcf,bcnf->bcn", amplitudes, sines) + values
    return bent.clamp(0, 1).view_as(images)


def _filter(images: Tensor) -> Tensor:
    kernels = 4 * torch.rand(()) * torch.randn(len(images), 1, 3, 3)
    kernels[:, :, 2, 2] += 1
    planes = F.conv2d(images.transpose(0, 1), kernels, padding="same", groups=len(images))
    return planes.transpose(0, 1).clamp(0, 1)
