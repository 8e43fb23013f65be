"""Blur images as a lens, glass, motion and zooming do."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.counter_random import keys_of, paired_uniforms
from entprop_fast.lab.corruptions.common.levels import NEAR, whole
from entprop_fast.lab.corruptions.filters import gaussian_blur as smooth

_JUMPS = 7  # doublings of a chain of moved pixels; each link has a probability below 0.42
_FEW = 25  # weights of a kernel, up to which a sum is faster than Fourier transforms
_EXACT = 6  # pixels: Gaussians that reach no further are summed as SciPy does
_FAINTEST = 1e-7  # of a kernel's largest weight; less than a hundredth of an 8-bit level


def gaussian_blur(levels: Tensor, keys: Tensor, sigma: float) -> Tensor:
    """Smooth, cut at 4 sigma, the border repeated, as scikit-image does; uint8 as is the result."""
    radius = math.floor(4 * sigma + 0.5)
    if radius > _EXACT:
        return whole(smooth(levels.float(), sigma, radius=radius).add_(NEAR))
    return whole(_smooth_exactly(levels.double().div_(255), sigma, radius).mul_(255))


def _smooth_exactly(images: Tensor, sigma: float, radius: int) -> Tensor:
    """Sum as SciPy, one by one in float64: in plain areas the rounding decides about a level."""
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    far_to_near = (weights / weights.sum())[: radius + 1].tolist()
    for dim, pad in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded, size = F.pad(images, pad, mode="replicate"), images.shape[dim]
        images = images * far_to_near[radius]
        for step, weight in enumerate(far_to_near[:radius]):
            pair = padded.narrow(dim, step, size) + padded.narrow(dim, 2 * radius - step, size)
            images.add_(pair.mul_(weight))
    return images


def defocus_blur(levels: Tensor, keys: Tensor, radius: float, softness: float) -> Tensor:
    """Blur by a disk of ``radius`` pixels, its edge smoothed by ``softness``; mirrored around.

    A small disk is a sum of shifted copies, a large one a product of Fourier transforms. From and
    to uint8; plain areas go down by one where the weights come to less than 1, by rounding.
    """
    kernel = _disk(radius, softness).double().to(levels.device)
    height, width = levels.shape[2:]
    reach = kernel.shape[0] // 2
    padded = mirrored(levels.double(), reach)
    if kernel.numel() <= _FEW:
        blurred = torch.zeros_like(padded[:, :, :height, :width])
        for (down, right), weight in np.ndenumerate(kernel.cpu().numpy()):
            part = padded[:, :, down : down + height, right : right + width]
            blurred.add_(part, alpha=float(weight))
    else:
        size = (_fast(height + 2 * reach), _fast(width + 2 * reach))
        spectrum = torch.fft.rfft2(kernel, s=size)  # the kernel equals its own mirror image
        blurred = torch.fft.irfft2(torch.fft.rfft2(padded, s=size).mul_(spectrum), s=size)
        blurred = blurred[:, :, 2 * reach :, 2 * reach :][:, :, :height, :width]
    return whole(blurred)


def _fast(side: int) -> int:
    """Round up to a size whose Fourier transforms are quick: 16 times twos, threes and fives."""
    sixteenths = -(-side // 16)
    while (30 ** sixteenths.bit_length()) % sixteenths:
        sixteenths += 1
    return 16 * sixteenths


@functools.lru_cache(maxsize=32)
def _disk(radius: float, softness: float) -> Tensor:
    """Weigh a disk evenly, under a Gaussian of 3x3 or 5x5 pixels, without the zeros around.

    In float32, as OpenCV has them: they come to 1 but for its rounding.
    """
    reach, soft = (8, 1) if radius <= 8 else (math.ceil(radius), 2)
    place = torch.arange(-reach, reach + 1)
    disk = (place.square()[:, None] + place.square() <= radius**2).float()
    near = torch.exp(-torch.arange(-soft, soft + 1).double().square() / (2 * softness**2))
    weights = (near / near.sum()).float()
    kernel = mirrored((disk / disk.sum())[None, None], soft)[0, 0]
    for dim in (1, 0):
        parts = kernel.unfold(dim, 2 * soft + 1, 1).unbind(2)
        kernel = parts[soft] * weights[soft]
        for step in range(1, soft + 1):
            kernel = kernel + (parts[soft - step] + parts[soft + step]) * weights[soft + step]
    used = int(kernel[reach].count_nonzero()) // 2
    return kernel[reach - used : reach + used + 1, reach - used : reach + used + 1]


def mirrored(images: Tensor, reach: int) -> Tensor:
    """Pad the image by ``reach`` pixels: turned over, its border not repeated."""
    if reach < min(images.shape[2:]):
        return F.pad(images, (reach,) * 4, mode="reflect")
    rows, columns = (
        _mirror(torch.arange(-reach, side + reach, device=images.device), side)
        for side in images.shape[2:]
    )
    return images.index_select(2, rows).index_select(3, columns)


def _mirror(place: Tensor, side: int) -> Tensor:
    period = max(2 * (side - 1), 1)
    place = place.remainder(period)
    return torch.minimum(place, period - place).clamp(max=side - 1)


def glass_blur(
    levels: Tensor, keys: Tensor, sigma: float, reach: float, iterations: float
) -> Tensor:
    """Blur, replace each pixel by one within ``reach``, blur again; 8 bits after each blur.

    The published loop goes through the pixels from the last to the first; its exchange of two
    pixels copies in one direction only (both sides are views), and so do we: a pixel takes the
    value that its source has at that moment, which is the source's own source where that came
    before. Chains are followed by doubling.
    """
    levels = gaussian_blur(levels, keys, sigma)
    for iteration in range(int(iterations)):
        levels = _moved(levels, _sources(levels, keys_of(iteration, keys), int(reach)))
    return gaussian_blur(levels, keys, sigma)


def _sources(images: Tensor, keys: Tensor, reach: int) -> Tensor:
    """Find for each pixel the place ``y width + x`` whose value it ends with, int64 ``[N, HW]``."""
    height, width = images.shape[2:]
    drawn = paired_uniforms(keys, 2 * height * width).view(-1, 2, height, width)
    moves = (drawn * (2 * reach)).long() - reach  # from -reach to reach - 1: down, right
    own = torch.arange(height * width, device=images.device).view(height, width)
    source = own + moves[:, 0] * width + moves[:, 1]
    y, x = own // width, own % width
    visited = (y > reach) & (y <= height - reach) & (x > reach) & (x <= width - reach)
    source = torch.where(visited, source, own).flatten(1)
    ends = (source <= own.view(-1)).flatten(1)  # the source is still as it was at that moment
    # Where the next link of a pixel's chain is: itself once the chain ends.
    link = torch.where(ends, own.view(-1), source)
    for _ in range(_JUMPS):
        link = link.gather(1, link)
    return source.gather(1, link)


def _moved(images: Tensor, source: Tensor) -> Tensor:
    flat = images.flatten(2)
    return flat.gather(2, source[:, None].expand_as(flat)).view(images.shape)


def motion_blur(images: Tensor, keys: Tensor, radius: float, sigma: float) -> Tensor:
    """Blur along a line at an angle of -45 to 45 degrees, fading out as half a Gaussian."""
    degrees = 90 * paired_uniforms(keys, 1)[:, 0] - 45
    return line_blur(images, degrees, radius, sigma)


def line_blur(images: Tensor, degrees: Tensor, radius: float, sigma: float) -> Tensor:
    """Blur as ImageMagick: pixel i of a line of ``2 radius + 1`` weighs exp(-i²/2σ²).

    Its places are rounded to whole pixels; the border is repeated.

    Args:
        images: float ``[N, C, H, W]``.
        degrees: float ``[N]``, from the right towards the bottom.
        radius: whole pixels.
        sigma: pixels.
    """
    height, width = images.shape[2:]
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(2 * math.ceil(radius) + 1)]
    kept = [weight for weight in weights if weight > _FAINTEST]
    reach = len(kept) - 1
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    row = padded.shape[3]
    step = torch.arange(len(kept), device=images.device)
    angle = torch.deg2rad(degrees.double())[:, None]
    right, down = (torch.ceil(step * one - 0.5).long() for one in (angle.cos(), angle.sin()))
    moves = down * row + right  # [N, taps], in the padded image's memory
    y, x = (torch.arange(side, device=images.device) + reach for side in (height, width))
    own = (y[:, None] * row + x).view(-1)
    flat, total = padded.flatten(2), torch.zeros_like(images)
    for tap, weight in enumerate(kept):
        place = (own + moves[:, tap, None])[:, None].expand(-1, flat.shape[1], -1)
        total.add_(flat.gather(2, place).view_as(images), alpha=weight / sum(weights))
    return total


def zoom_blur(levels: Tensor, keys: Tensor, *factors: float) -> Tensor:
    """Average the image and itself enlarged by each of the ``factors``; from and to uint8.

    Enlarged in float64 and summed in float32, as published: the sum's rounding takes a level from
    some plain areas.
    """
    images = levels.float().div_(255)
    # In which zooming is fastest.
    wide = images.double().contiguous(memory_format=torch.channels_last)
    total = torch.zeros_like(wide, dtype=torch.float32)
    enlarged: dict[
        tuple[tuple[int, ...], tuple[int, ...]], Tensor
    ] = {}  # small images have few sizes
    for factor in factors:
        sizes = _zoom_sizes(wide, factor)
        if sizes not in enlarged:
            enlarged = {sizes: zoomed(wide, factor).float()}
        total += enlarged[sizes]
    return whole(total.add_(images).div_(len(factors) + 1).mul_(255))


def zoomed(images: Tensor, factor: float) -> Tensor:
    """Enlarge about the centre, to fill the same frame: bilinear, as SciPy's ``zoom``.

    There the corners' centres stay corners, so the exact factor depends on rounded sizes.
    """
    crops, large = _zoom_sizes(images, factor)
    middle = _middle(images, crops)
    enlarged = F.interpolate(middle, size=list(large), mode="bilinear", align_corners=True)
    return _middle(enlarged, images.shape[2:])


def _zoom_sizes(images: Tensor, factor: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Say what is cut out of the middle, and to what it is enlarged."""
    crops = tuple(math.ceil(side / factor) for side in images.shape[2:])
    return crops, tuple(round(crop * factor) for crop in crops)


def _middle(images: Tensor, sides: Sequence[int]) -> Tensor:
    """Cut out the middle; an odd pixel too many is on the right or at the bottom."""
    top, left = ((whole - side) // 2 for whole, side in zip(images.shape[2:], sides, strict=True))
    return images[:, :, top : top + sides[0], left : left + sides[1]]
