"""Corrupt the picture as data: contrast, colour, resolution, compression, elastic warps."""

from __future__ import annotations

import functools
import io
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.counter_random import keys_of, paired_uniforms
from entprop_fast.lab.corruptions.filters import pixel_grid, warp
from entprop_fast.optional import require


def contrast(images: Tensor, keys: Tensor, factor: float) -> Tensor:
    """Scale each channel's distance from its own mean by ``factor``."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean + factor * (images - mean)


def brightness(images: Tensor, keys: Tensor, offset: float) -> Tensor:
    """Add ``offset`` to HSV's value, clipped at 1: each pixel times the new over the old."""
    value = images.amax(dim=1, keepdim=True)
    brighter = (value + offset).clamp(max=1)
    return torch.where(value > 0, images * (brighter / value), brighter)  # black turns grey


def saturate(images: Tensor, keys: Tensor, factor: float, offset: float) -> Tensor:
    """Scale HSV's saturation by ``factor``, add ``offset``, clip to [0, 1]; grey counts as red."""
    value = images.amax(dim=1, keepdim=True)
    drop = value - images
    widest = drop.amax(dim=1, keepdim=True)
    red = torch.tensor((0.0, 1.0, 1.0), device=images.device, dtype=images.dtype).view(3, 1, 1)
    share = torch.where(widest > 0, drop / widest, red)
    saturation = torch.where(value > 0, widest / value, 0)
    return value * (1 - (factor * saturation + offset).clamp_(0, 1) * share)


def pixelate(images: Tensor, keys: Tensor, fraction: float) -> Tensor:
    """Average down to ``fraction`` of each side and enlarge again, as Pillow's box filter does.

    A cell is the mean of the pixels whose centres lie in it, rounded to 8 bits after each
    direction. From uint8, or from the nearest level of floating images; to uint8.
    """
    down, right = (
        _cells(side, max(1, int(side * fraction)), images.device) for side in images.shape[2:]
    )
    count, channels, height, width = images.shape
    columns = images.float().reshape(-1, width).t().contiguous()
    if images.dtype != torch.uint8:
        columns = columns.mul_(255).round_()
    means = _means(columns, right)  # [cells, N C H]
    means = means.t().reshape(-1, height, means.shape[0])  # [N C, H, cells]
    means = _means(means.movedim(1, 0), down)  # [cells, N C cells]
    means = means.view(-1, right.count.shape[0]).index_select(1, right.of_pixel)
    rows = means.to(torch.int16).to(torch.uint8).view(-1, count, channels, width)
    return rows.index_select(0, down.of_pixel).movedim(0, 2)


@dataclass(frozen=True)
class _Cells:
    """Divide a side: pixels of all cells one after the other, where each cell's begin and how many
    they are (as a column), and the cell that each pixel becomes.
    """

    pixels: Tensor
    begins: Tensor
    count: Tensor
    of_pixel: Tensor


@functools.lru_cache(maxsize=64)
def _cells(side: int, cells: int, device: torch.device) -> _Cells:
    first, count = _windows(side, cells)
    pixels = [begin + i for begin, size in zip(first, count, strict=True) for i in range(size)]
    begins = [0, *itertools.accumulate(count[:-1])]
    of_pixel, _ = _windows(cells, side)
    parts = (torch.tensor(one, device=device) for one in (pixels, begins, count, of_pixel))
    one, two, three, four = parts
    return _Cells(one, two, three[:, None], four)


def _means(levels: Tensor, cells: _Cells) -> Tensor:
    """Average the first dimension's pixels in each cell, rounded: ``[cells, all others]``."""
    rows = levels.contiguous().flatten(1)
    sums = F.embedding_bag(cells.pixels, rows, cells.begins, mode="sum")
    return sums.div_(cells.count).add_(0.5 + 1e-4).floor_()


def _windows(side: int, cells: int) -> tuple[list[int], list[int]]:
    """Find the first pixel and the number of pixels that Pillow's box filter puts into each cell.

    A pixel is in by its centre, edges included above; in Pillow's own float arithmetic, which
    decides about centres on an edge.
    """
    length = side / cells
    wide = max(length, 1.0)
    first, count = [], []
    for cell in range(cells):
        centre = (cell + 0.5) * length
        near = range(max(int(centre - wide / 2 + 0.5), 0), min(int(centre + wide / 2 + 0.5), side))
        inside = [i for i in near if -0.5 < (i - centre + 0.5) * (1 / wide) <= 0.5]
        first.append(inside[0])
        count.append(len(inside))
    return first, count


def jpeg_compression(levels: Tensor, keys: Tensor, quality: float) -> Tensor:
    """Go through Pillow's JPEG encoder and decoder, image by image on the host; uint8 to uint8."""
    require("PIL", extra="vision", purpose="corruption 'jpeg_compression'")
    from PIL import Image

    height, width = levels.shape[2:]
    planes = levels.cpu().numpy()  # [N, C, H, W]
    decoded = np.empty_like(planes)
    for before, after in zip(planes, decoded, strict=True):
        bands = [Image.frombuffer("L", (width, height), one, "raw", "L", 0, 1) for one in before]
        picture = bands[0] if len(bands) == 1 else Image.merge("RGB", bands)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(quality))
        # The decoder alone: `Image.open` reads the file's header in Python.
        mode = picture.mode
        read = Image.frombytes(mode, picture.size, file.getvalue(), "jpeg", mode, "")
        for plane, band in zip(after, mode, strict=True):
            plane[...] = np.frombuffer(read.tobytes("raw", band), np.uint8).reshape(plane.shape)
    return torch.from_numpy(decoded).to(levels.device)


def elastic_transform(
    images: Tensor, keys: Tensor, amplitude: float, sigma: float, corners: float
) -> Tensor:
    """Apply a random affine map, then a smooth random displacement.

    Args:
        images: float ``[N, C, H, W]``.
        keys: of the images.
        amplitude: of the displacement, smoothed uniform noise in [-1, 1], in pixels.
        sigma: of that smoothing, in pixels.
        corners: how far each of three points of the affine map moves at most, in pixels.
    """
    count, _, height, width = images.shape
    drawn = 2 * paired_uniforms(keys_of(0, keys), 6).to(images.dtype) - 1
    images = _affine(images, corners * drawn.view(count, 3, 2))
    if not amplitude:
        return images
    noise = 2 * paired_uniforms(keys_of(1, keys), 2 * height * width) - 1
    field = _smoothed(noise.view(count, 2, height, width), sigma).to(images.dtype) * amplitude
    x, y = pixel_grid(images)
    return warp(images, x + field[:, 0], y + field[:, 1], edges="reflect")


def _affine(images: Tensor, moved: Tensor) -> Tensor:
    """Move three corners of a square by ``moved`` ``[N, 3, (x, y)]``; the image is mirrored.

    A point's place among the three is its barycentric coordinates b, so it moves by sum b_i d_i;
    a pixel shows what is moved there, hence the inverse.
    """
    height, width = images.shape[2:]
    half = max(min(height, width) // 3, 1)
    # The corners are c + (half, half), c + (half, -half) and c - (half, half): with offsets
    # u = x - cx, v = y - cy, b = ((u + v) / 2h', ...) as below, where h' = half.
    first, second, third = moved.unbind(dim=1)  # each [N, 2]
    by_u = (second - third) / (2 * half)
    by_v = (first - second) / (2 * half)
    shift = (first + third) / 2
    a, b = 1 + by_u[:, 0], by_v[:, 0]
    c, d = by_u[:, 1], 1 + by_v[:, 1]
    determinant = a * d - b * c
    determinant = torch.where(determinant.abs() < 1e-6, 1e-6, determinant)
    x, y = pixel_grid(images)
    centre_x, centre_y = width // 2, height // 2
    u = x - centre_x - shift[:, 0].view(-1, 1, 1)
    v = y - centre_y - shift[:, 1].view(-1, 1, 1)
    a, b, c, d = (one.view(-1, 1, 1) / determinant.view(-1, 1, 1) for one in (a, b, c, d))
    return warp(images, centre_x + d * u - b * v, centre_y + a * v - c * u, edges="mirror")


def _smoothed(noise: Tensor, sigma: float) -> Tensor:
    """Smooth in float64, cut at 3 sigma, the noise turned over at its edges.

    By matrices, as 3 sigma may be several times the image; in float64, because a GPU may run a
    float32 product in TF32.
    """
    rows, columns = (_smoothing_matrix(side, sigma, noise) for side in noise.shape[2:])
    across = (noise.double() @ columns.mT).mT.contiguous()
    return (across @ rows.mT).mT


def _smoothing_matrix(side: int, sigma: float, like: Tensor) -> Tensor:
    radius = math.floor(3 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=like.device)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    pixels = torch.arange(side, device=like.device)[:, None]
    source = (pixels + offsets).remainder(2 * side)
    source = torch.minimum(source, 2 * side - 1 - source)
    matrix = torch.zeros(side, side, dtype=torch.float64, device=like.device)
    return matrix.scatter_add_(1, source, (weights / weights.sum()).expand(side, -1).contiguous())
