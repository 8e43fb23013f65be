"""List the published strengths of the corruptions (Hendrycks and Dietterich, ICLR 2019).

From github.com/hendrycks/robustness, ImageNet-C/create_c: ``make_cifar_c.py`` (images of 32 pixels)
and ``make_imagenet_c.py`` (of 224). They differ by much more than the size of the images: CIFAR-C
is the milder. Lengths are pixels of those sizes, and are used as they are at any other.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Scale = Literal["cifar-c", "imagenet-c"]
SCALES: tuple[Scale, ...] = get_args(Scale)

Strength = tuple[float, ...]
Severities = tuple[Strength, Strength, Strength, Strength, Strength]


def _one(*values: float) -> Severities:
    one, two, three, four, five = ((value,) for value in values)
    return one, two, three, four, five


def _zooms(*ends: tuple[float, float]) -> Severities:
    """List zoom factors from 1 to an end by a step; NumPy decides which ends are in, as there."""
    one, two, three, four, five = (
        tuple(float(factor) for factor in np.arange(1, end, step)) for end, step in ends
    )
    return one, two, three, four, five


def _times(unit: float, *rows: Strength) -> Severities:
    one, two, three, four, five = (tuple(unit * value for value in row) for row in rows)
    return one, two, three, four, five


# In the order in which their functions take them.
STRENGTHS: dict[Scale, dict[str, Severities]] = {
    "cifar-c": {
        "gaussian_noise": _one(0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": _one(500, 250, 100, 75, 50),
        "impulse_noise": _one(0.01, 0.02, 0.03, 0.05, 0.07),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom_blur": _zooms((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        # The last number: pixels of a texture that become one.
        "frost": ((1, 0.2, 5), (1, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": _one(0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": _one(0.75, 0.5, 0.4, 0.3, 0.15),
        "elastic_transform": _times(
            32,
            (0, 0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ),
        "pixelate": _one(0.95, 0.9, 0.85, 0.75, 0.65),
        "jpeg_compression": _one(80, 65, 58, 50, 40),
        "speckle_noise": _one(0.06, 0.1, 0.12, 0.16, 0.2),
        "gaussian_blur": _one(0.4, 0.6, 0.7, 0.8, 1),
        "spatter": (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
        "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    },
    "imagenet-c": {
        "gaussian_noise": _one(0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": _one(60, 25, 12, 5, 3),
        "impulse_noise": _one(0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": _zooms((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "snow": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "frost": ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": _one(0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": _one(0.4, 0.3, 0.2, 0.1, 0.05),
        # 244, not 224: a slip of the published code that the published set has in it.
        "elastic_transform": _times(
            244,
            (2, 0.7, 0.1),
            (2, 0.08, 0.2),
            (0.05, 0.01, 0.02),
            (0.07, 0.01, 0.02),
            (0.12, 0.01, 0.02),
        ),
        "pixelate": _one(0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": _one(25, 18, 15, 10, 7),
        "speckle_noise": _one(0.15, 0.2, 0.35, 0.45, 0.6),
        "gaussian_blur": _one(1, 2, 3, 4, 6),
        "spatter": (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
        "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    },
}
