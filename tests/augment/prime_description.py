"""PRIME image by image in float64, written from its paper and code, to compare with."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def displacements(normals: Array, cut: int, scale: float, height: int, width: int) -> list[Array]:
    """Sum all modes one by one; `normals` [2, H - 2, W - 2] are those of modes that look alike."""
    fields = []
    for drawn, side in ((normals[0], width), (normals[1], height)):
        variance = np.zeros_like(drawn)
        for i in range(1, cut + 1):
            for j in range(1, cut + 1):
                if math.hypot(i, j) < cut + 0.5:
                    row, column = _looks_like(i, height), _looks_like(j, width)
                    if row and column:
                        variance[row - 1, column - 1] += 1 / (i * i + j * j)
        field = np.zeros((height, width))
        y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
        for i in range(1, height - 1):
            for j in range(1, width - 1):
                wave = np.sin(np.pi * i * y) * np.sin(np.pi * j * x)
                field += drawn[i - 1, j - 1] * math.sqrt(variance[i - 1, j - 1]) * wave
        fields.append(scale * field * side)
    return fields


def _looks_like(frequency: int, pixels: int) -> int:
    """Return which of 1 ... pixels - 2 has the same sine on so many pixels; 0: it vanishes."""
    x = np.linspace(0, 1, pixels)
    wave = np.sin(np.pi * frequency * x)
    for own in range(1, pixels - 1):
        if np.allclose(np.abs(wave @ np.sin(np.pi * own * x)), (pixels - 1) / 2):
            return own
    return 0


def warp(image: Array, dx: Array, dy: Array) -> Array:
    """Sample [C, H, W] at (x - dx, y - dy)."""
    _, height, width = image.shape
    result = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            at_x = min(max(x - dx[y, x], 0), width - 1)
            at_y = min(max(y - dy[y, x], 0), height - 1)
            x0, y0, x1, y1 = (int(f(v)) for f in (math.floor, math.ceil) for v in (at_x, at_y))
            tx, ty = at_x - x0, at_y - y0
            result[:, y, x] = (1 - ty) * ((1 - tx) * image[:, y0, x0] + tx * image[:, y0, x1])
            result[:, y, x] += ty * ((1 - tx) * image[:, y1, x0] + tx * image[:, y1, x1])
    return result


def color(image: Array, amplitudes: Array) -> Array:
    """Add sines to the values of [C, H, W]; amplitudes [C, K] of frequencies 1 ... K."""
    result = np.empty_like(image)
    for channel, own in zip(range(len(image)), amplitudes, strict=True):
        value = image[channel]
        for k, amplitude in enumerate(own, start=1):
            value = value + amplitude * np.sin(np.pi * k * image[channel])
        result[channel] = value
    return result.clip(0, 1)


def filtered(image: Array, kernel: Array) -> Array:
    """Correlate [C, H, W] with [k, k], zero outside."""
    reach = len(kernel) // 2
    _, height, width = image.shape
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            for i, row in enumerate(kernel):
                for j, weight in enumerate(row):
                    at_y, at_x = y + i - reach, x + j - reach
                    if 0 <= at_y < height and 0 <= at_x < width:
                        result[:, y, x] += weight * image[:, at_y, at_x]
    return result.clip(0, 1)


class Draws:
    """What utils/prime.py, run by train.py with CIFAR's config, draws for one square image."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def cut(self) -> int:
        highest = self.random.integers(3, 101)
        return int(self.random.beta(0.5, 0.5) * (highest + 1 - 2) + 2)

    def temperature(self, pixels: int, cut: int) -> float:
        low = 1 / (math.pi * pixels**2 * math.log(cut + 1e-6))
        high = max(low, 4 / (math.pi**3 * cut**2 * math.log(cut + 1e-6)))
        return float(self.random.beta(0.5, 0.5) * (high - low) + low)

    def field(self, pixels: int, cut: int, temperature: float) -> Array:
        k = np.arange(1, cut + 1)
        radius = np.hypot(k[:, None], k)
        modes = self.random.normal(size=(cut, cut)) * (radius < cut + 0.5) / radius
        waves = np.sin(np.pi * np.linspace(0, 1, pixels)[:, None] * k)
        field: Array = math.sqrt(temperature) * pixels * (waves @ modes @ waves.T)
        return field

    def primitive(self, image: Array) -> Array:
        """Apply one of the three to [C, n, n]."""
        kind = self.random.integers(3)
        if kind == 0:
            pixels, cut = image.shape[-1], self.cut()
            temperature = self.temperature(pixels, cut)
            dx, dy = (self.field(pixels, cut, temperature) for _ in range(2))
            return warp(image, dx, dy)
        if kind == 1:
            shape = len(image), self.random.integers(1, 101)
            return color(
                image, self.random.normal(size=shape) * math.sqrt(self.random.uniform(0, 0.01))
            )
        kernel = self.random.uniform(0, 4) * self.random.normal(size=(3, 3))
        kernel[2, 2] += 1
        return filtered(image, kernel)

    def augmented(self, image: Array) -> Array:
        """Mix chains of [C, n, n]."""
        weights, mixed = self.random.dirichlet(np.ones(3)), self.random.beta(1, 1)
        result = (1 - mixed) * image
        for weight in weights:
            chain = image
            for _ in range(self.random.integers(1, 4)):
                chain = self.primitive(chain)
            result = result + mixed * weight * chain
        return result
