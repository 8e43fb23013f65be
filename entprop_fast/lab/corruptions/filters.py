"""Smooth and warp images so that a result does not hang on the batch around it."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Edges = Literal["zeros", "nearest", "reflect", "mirror"]


def gaussian_blur(
    images: Tensor,
    sigma: float,
    edges: Literal["replicate", "circular"] = "replicate",
    radius: int | None = None,
) -> Tensor:
    """Smooth with a Gaussian, cut at 3 sigma or at `radius`.

    A sum of shifted copies rather than a convolution (kornia's is one): convolutions run in TF32
    on a GPU and choose their algorithm by batch size, and reflected edges, kornia's default, need
    an image larger than the kernel.

    Args:
        images: float ``[N, C, H, W]``.
        sigma: in pixels, positive.
        edges: what lies outside, the nearest pixel or the opposite side (for that, a side must
            hold the radius).
        radius: pixels on each side that count; None: 3 sigma, rounded up.
    """
    radius = math.ceil(3 * sigma) if radius is None else radius
    weights = [math.exp(-0.5 * (d / sigma) ** 2) for d in range(-radius, radius + 1)]
    total = sum(weights)
    for dim, pad in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        padded = F.pad(images, pad, mode=edges)
        size = images.shape[dim]
        images = torch.zeros_like(images)
        for offset, weight in enumerate(weights):
            images.add_(padded.narrow(dim, offset, size), alpha=weight / total)
    return images


# What lies outside, to torch: its padding mode, and whether -1 and 1 are the corner pixels'
# centres (their reflection leaves the border out) or their outer edges (it repeats it).
_PADDING: dict[Edges, tuple[str, bool]] = {
    "zeros": ("zeros", False),
    "nearest": ("border", False),
    "reflect": ("reflection", False),
    "mirror": ("reflection", True),
}


def warp(images: Tensor, x: Tensor, y: Tensor, edges: Edges = "zeros") -> Tensor:
    """Resample bilinearly: output pixel (i, j) shows the input at ``(y[i, j], x[i, j])``.

    Args:
        images: float ``[N, C, H, W]``.
        x, y: source coordinates in pixels, pixel centres at whole numbers, ``[N, H, W]``.
        edges: what lies outside: 0, the nearest pixel, or the image turned over, with its border
            repeated (``reflect``) or not (``mirror``), as SciPy calls them.
    """
    height, width = images.shape[2:]
    padding, centres = _PADDING[edges]
    if centres:
        grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=3)
    else:
        grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=3)
    return F.grid_sample(
        images,
        grid.to(images.dtype),
        mode="bilinear",
        padding_mode=padding,
        align_corners=centres,
    )


def rotate(images: Tensor, radians: Tensor) -> Tensor:
    """Rotate each image about its centre, positive counter-clockwise as seen on a screen."""
    height, width = images.shape[2:]
    x, y = pixel_grid(images)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    cos, sin = radians.cos().view(-1, 1, 1), radians.sin().view(-1, 1, 1)
    return warp(images, cos * x - sin * y + (width - 1) / 2, sin * x + cos * y + (height - 1) / 2)


def shift(images: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Shift each image by its own number of pixels, fractions included; what comes in is 0."""
    x, y = pixel_grid(images)
    return warp(images, x - right.view(-1, 1, 1), y - down.view(-1, 1, 1))


def pixel_grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return every pixel's own ``(x, y)``, each ``[1, H, W]`` in the images' dtype."""
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device, dtype=images.dtype)
    y = torch.arange(height, device=images.device, dtype=images.dtype)
    return x.expand(1, height, width), y[:, None].expand(1, height, width)
