"""Spatter one image, pixel by pixel, with distances step by step and SciPy's own labels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import scipy.ndimage as ndi

from bench.corruptions.per_image import Array, Draws, smoothed

WATER, MUD = np.array((175, 238, 238)) / 255, np.array((63, 42, 20)) / 255


def spatter(x: Array, draws: Draws, *strength: float) -> Array:
    mean, std, sigma, threshold, amount, mud = strength
    layer = smoothed(mean + std * draws.normal(*x.shape[:2]), sigma)
    layer[layer < threshold] = 0
    colors = (WATER, MUD) if x.shape[2] == 3 else (WATER.mean(), MUD.mean())
    if mud:
        cover = smoothed((layer > threshold).astype(float), amount)
        cover[cover < 0.8] = 0
        return np.asarray(x * (1 - cover[..., None]) + cover[..., None] * colors[1])
    levels = np.floor(layer * 255) % 256
    distance = np.minimum(chamfer(canny(levels)), 20)
    near = np.floor(ndi.uniform_filter(distance, 3, mode="mirror") + 5e-5)
    kernel = np.array(((-2, -1, 0), (-1, 1, 1), (0, 1, 2)))
    lit = np.clip(ndi.correlate(equalized(near), kernel, mode="mirror"), 0, 255)
    shine = levels * np.round(ndi.uniform_filter(lit, 3, mode="mirror"))
    shine = amount * shine / max(shine.max(), 1)
    return np.asarray(x + shine[..., None] * colors[0])


def canny(levels: Array) -> Array:
    kernel = np.array(((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)))
    gx = ndi.correlate(levels, kernel, mode="nearest")
    gy = ndi.correlate(levels, kernel.T, mode="nearest")
    size = np.abs(gx) + np.abs(gy)
    around = np.pad(size, 1)
    thin = np.zeros(levels.shape, dtype=bool)
    for y, x in np.ndindex(levels.shape):
        steepness = math.degrees(math.atan2(abs(gy[y, x]), abs(gx[y, x])))
        centre = around[y + 1, x + 1]
        if steepness < 22.5:
            before, after, ties = around[y + 1, x], around[y + 1, x + 2], True
        elif steepness > 67.5:
            before, after, ties = around[y, x + 1], around[y + 2, x + 1], True
        elif (gx[y, x] < 0) == (gy[y, x] < 0):
            before, after, ties = around[y, x], around[y + 2, x + 2], False
        else:
            before, after, ties = around[y, x + 2], around[y + 2, x], False
        thin[y, x] = centre > before and (centre >= after if ties else centre > after)
    pieces, _ = ndi.label(thin & (size > 50), structure=np.ones((3, 3)))
    strong = np.setdiff1d(np.unique(pieces[thin & (size > 150)]), 0)
    return np.asarray(np.isin(pieces, strong))


def chamfer(edges: Array) -> Array:
    """Lengths of the shortest ways to an edge pixel, by steps of three kinds."""
    costs = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}
    height, width = edges.shape
    distance = np.where(edges, 0.0, np.inf)
    while True:
        padded, before = np.pad(distance, 2, constant_values=np.inf), distance
        for down, right in itertools.product(range(-2, 3), repeat=2):
            low, high = sorted((abs(down), abs(right)))
            if (low, high) in costs:
                there = padded[2 + down : 2 + down + height, 2 + right : 2 + right + width]
                distance = np.minimum(distance, there + costs[low, high])
        if np.array_equal(before, distance):
            return distance


def equalized(levels: Array) -> Array:
    values, counts = np.unique(levels, return_counts=True)
    if len(values) == 1:
        return levels
    upto = np.cumsum(counts) - counts[0]
    table = dict(zip(values, np.round(upto * 255 / (levels.size - counts[0])), strict=True))
    return np.array([table[level] for level in levels.flat], dtype=float).reshape(levels.shape)
