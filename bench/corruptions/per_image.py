"""Corrupt one image at a time, in 19 ways, with NumPy, SciPy, Pillow and matplotlib.

Written from the definitions, apart from `entprop_fast`: the truth in its tests and the baseline in
its benchmark. These libraries do the work of scikit-image's functions, without its checks.
Images are float64 ``[H, W, C]`` in [0, 1]; results are not clipped.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import scipy.ndimage as ndi
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import fftconvolve

Array = NDArray[Any]


class Draws(Protocol):
    """Draw the random numbers of one image."""

    def stream(self, number: int) -> Draws: ...
    def normal(self, *shape: int) -> Array: ...
    def uniform(self, *shape: int) -> Array: ...
    def poisson(self, mean: Array) -> Array: ...
    def integers(self, *bounds: int) -> list[int]: ...


def gaussian_noise(x: Array, draws: Draws, std: float) -> Array:
    return x + std * draws.normal(*x.shape)


def speckle_noise(x: Array, draws: Draws, std: float) -> Array:
    return x + std * x * draws.normal(*x.shape)


def shot_noise(x: Array, draws: Draws, photons: float) -> Array:
    return draws.poisson(photons * x) / photons


def impulse_noise(x: Array, draws: Draws, fraction: float) -> Array:
    u = draws.uniform(*x.shape)
    return np.where(u < fraction / 2, 0.0, np.where(u < fraction, 1.0, x))


def cut(x: Array) -> Array:
    """Round to 8 bits, downwards, as a cast to bytes does."""
    return np.asarray(np.floor(np.clip(x, 0, 1) * 255) / 255)


def gaussian_blur(x: Array, draws: Draws, sigma: float) -> Array:
    return cut(smoothed(x, sigma))


def smoothed(x: Array, sigma: float) -> Array:
    sigmas = (sigma, sigma, 0)[: x.ndim]
    return np.asarray(ndi.gaussian_filter(x, sigmas, mode="nearest", truncate=4))


def defocus_blur(x: Array, draws: Draws, radius: float, softness: float) -> Array:
    reach, size = (8, 3) if radius <= 8 else (math.ceil(radius), 5)
    place = np.arange(-reach, reach + 1)
    disk = (place[:, None] ** 2 + place**2 <= radius**2).astype(np.float32)
    near = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * softness**2))
    soft = (near / near.sum()).astype(np.float32)
    kernel = disk / disk.sum()
    for axis in (1, 0):  # in float32, as OpenCV
        kernel = ndi.correlate1d(kernel, soft, axis=axis, mode="mirror")
    if radius <= 2:  # a few pixels that count
        parts = [ndi.correlate(x[..., c], kernel, mode="mirror") for c in range(x.shape[2])]
        return cut(np.stack(parts, axis=2))
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    wide = kernel[..., None].astype(float)
    return cut(np.asarray(fftconvolve(padded, wide, mode="valid", axes=(0, 1))))


def glass_blur(x: Array, draws: Draws, sigma: float, reach: float, iterations: float) -> Array:
    x, reach = cut(smoothed(x, sigma)), int(reach)
    height, width = x.shape[:2]
    for iteration in range(int(iterations)):
        drawn = draws.stream(iteration).uniform(2, height, width)
        moves = np.floor(drawn * 2 * reach).astype(int) - reach
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                down, right = moves[:, h, w]
                # As published: both sides are views of one array, so nothing is exchanged.
                x[h, w], x[h + down, w + right] = x[h + down, w + right], x[h, w]
    return cut(smoothed(x, sigma))


def line_blur(x: Array, degrees: float, radius: float, sigma: float) -> Array:
    """Sum pixels at i steps along a line, rounded, weighted by half a Gaussian."""
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    height, width = x.shape[:2]
    total = np.zeros_like(x)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        right = math.ceil(step * math.cos(math.radians(degrees)) - 0.5)
        down = math.ceil(step * math.sin(math.radians(degrees)) - 0.5)
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        columns = np.clip(np.arange(width) + right, 0, width - 1)
        total += weight * x[rows][:, columns]
    return total


def motion_blur(x: Array, draws: Draws, radius: float, sigma: float) -> Array:
    return line_blur(x, 90 * draws.uniform(1)[0] - 45, radius, sigma)


def clipped_zoom(x: Array, factor: float) -> Array:
    cut = []
    for side in x.shape[:2]:
        crop = math.ceil(side / factor)
        top = (side - crop) // 2
        cut.append(slice(top, top + crop))
    large = ndi.zoom(x[tuple(cut)], (factor, factor, 1), order=1)
    top, left = ((large.shape[i] - x.shape[i]) // 2 for i in (0, 1))
    return np.asarray(large[top : top + x.shape[0], left : left + x.shape[1]])


def zoom_blur(x: Array, draws: Draws, *factors: float) -> Array:
    x = x.astype(np.float32)
    total = np.zeros_like(x)
    for factor in factors:
        total += clipped_zoom(x, factor)
    return cut((x + total) / (len(factors) + 1))


def grey(x: Array) -> Array:
    return x if x.shape[2] == 1 else (x @ np.array((0.299, 0.587, 0.114)))[..., None]


def snow(x: Array, draws: Draws, *strength: float) -> Array:
    mean, std, zoom, threshold, radius, sigma, keep = strength
    layer = mean + std * draws.stream(0).normal(*x.shape[:2])
    layer = clipped_zoom(layer[..., None], zoom)
    layer[layer < threshold] = 0
    degrees = 90 * draws.stream(1).uniform(1)[0] - 135
    layer = cut(line_blur(cut(layer) + 1e-9, degrees, radius, sigma) + 1e-9)
    white = np.maximum(x, 1.5 * grey(x) + 0.5)
    return np.asarray(keep * x + (1 - keep) * white + layer + np.rot90(layer, 2))


def frost(textures: Array) -> Callable[..., Array]:
    """Frost with textures ``[kinds, side, side, 3]``."""

    def frosted(x: Array, draws: Draws, keep: float, ice: float, shrink: float) -> Array:
        which, top, left = draws.integers(len(textures), *textures.shape[1:3])
        turned = np.roll(textures[which], (-top, -left), axis=(0, 1))[: x.shape[0], : x.shape[1]]
        return keep * x + ice * (turned if x.shape[2] == 3 else turned.mean(2, keepdims=True))

    return frosted


def plasma(random: Array, decay: float) -> Array:
    """Draw diamonds and squares by their four neighbours' indices; `random` in [-1, 1]."""
    size = len(random)
    heights = np.zeros((size, size))
    step, rough = size, 100.0
    while step >= 2:
        half = step // 2
        grid = np.arange(0, size, step)
        for down, right, diagonal in ((half, half, True), (0, half, False), (half, 0, False)):
            y, x = np.meshgrid(grid + down, grid + right, indexing="ij")
            around = (
                [(half, half), (half, -half), (-half, half), (-half, -half)]
                if diagonal
                else [(half, 0), (-half, 0), (0, half), (0, -half)]
            )
            total = sum(heights[(y + a) % size, (x + b) % size] for a, b in around)
            heights[y, x] = total / 4 + rough**2 * random[y, x]
        step, rough = half, rough / decay
    heights -= heights.min()
    return np.asarray(heights / heights.max())


def fog(x: Array, draws: Draws, amount: float, decay: float) -> Array:
    size = 2 ** math.ceil(math.log2(max(x.shape[:2])))
    mist = plasma(2 * draws.uniform(size, size) - 1, decay)[: x.shape[0], : x.shape[1], None]
    return np.asarray((x + amount * mist) * x.max() / (x.max() + amount))


def brightness(x: Array, draws: Draws, offset: float) -> Array:
    if x.shape[2] == 1:
        return x + offset
    hsv = rgb_to_hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + offset, 0, 1)
    return np.asarray(hsv_to_rgb(hsv))


def saturate(x: Array, draws: Draws, factor: float, offset: float) -> Array:
    hsv = rgb_to_hsv(x)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + offset, 0, 1)
    return np.asarray(hsv_to_rgb(hsv))


def contrast(x: Array, draws: Draws, factor: float) -> Array:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return np.asarray((x - mean) * factor + mean)


def _picture(x: Array) -> Image.Image:
    levels = np.round(x * 255).astype(np.uint8)
    return Image.fromarray(levels[..., 0] if x.shape[2] == 1 else levels)


def _array(picture: Image.Image, like: Array) -> Array:
    return np.asarray(picture).reshape(like.shape) / 255


def pixelated(picture: Image.Image, fraction: float) -> Image.Image:
    width, height = picture.size
    small = (max(1, int(width * fraction)), max(1, int(height * fraction)))
    box = Image.Resampling.BOX
    return picture.resize(small, box).resize((width, height), box)


def recompressed(picture: Image.Image, quality: float) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(quality))
    return Image.open(file)


def pixelate(x: Array, draws: Draws, fraction: float) -> Array:
    return _array(pixelated(_picture(x), fraction), x)


def jpeg_compression(x: Array, draws: Draws, quality: float) -> Array:
    return _array(recompressed(_picture(x), quality), x)


def elastic_transform(
    x: Array, draws: Draws, amplitude: float, sigma: float, corners: float
) -> Array:
    height, width = x.shape[:2]
    centre, half = np.array((width // 2, height // 2)), min(height, width) // 3
    before = centre + half * np.array(((1, 1), (1, -1), (-1, -1)))
    after = before + corners * (2 * draws.stream(0).uniform(3, 2) - 1)
    # Rows (x, y, 1) to rows (x', y'), and back.
    forward = np.linalg.solve(np.column_stack((before, np.ones(3))), after)  # [3, 2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2)
    source = (grid - forward[2]) @ np.linalg.inv(forward[:2])
    x = _sampled(x, source[..., 0], source[..., 1], "mirror")
    drawn = 2 * draws.stream(1).uniform(2, height, width) - 1
    if not amplitude:
        return x
    right, down = (
        amplitude * ndi.gaussian_filter(one, sigma, mode="reflect", truncate=3) for one in drawn
    )
    return _sampled(x, grid[..., 0] + right, grid[..., 1] + down, "reflect")


def _sampled(x: Array, columns: Array, rows: Array, mode: str) -> Array:
    parts = [
        ndi.map_coordinates(x[..., c], (rows, columns), order=1, mode=mode)
        for c in range(x.shape[2])
    ]
    return np.stack(parts, axis=2)


FUNCTIONS: dict[str, Callable[..., Array]] = {
    one.__name__: one
    for one in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        defocus_blur,
        glass_blur,
        motion_blur,
        zoom_blur,
        snow,
        fog,
        brightness,
        contrast,
        elastic_transform,
        pixelate,
        jpeg_compression,
        speckle_noise,
        gaussian_blur,
        saturate,
    )
}

# Kinds whose published code goes from picture to picture, without floating numbers.
OF_PICTURES: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "pixelate": pixelated,
    "jpeg_compression": recompressed,
}
