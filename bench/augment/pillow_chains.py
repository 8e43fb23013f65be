"""Augment one Pillow image after another: AugMix as its authors do, and torchvision's on images.

Written from the description of github.com/google-research/augmix (augmentations.py, `aug` of
cifar.py): the operations of `augmentations`, severity 3, three chains of one to three of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from entprop_fast.optional import import_torchvision

Levels = NDArray[np.uint8]
BILINEAR = Image.Resampling.BILINEAR
AFFINE = Image.Transform.AFFINE


class PillowOperations:
    """Draw and apply the operations that AugMix and PixMix share, with NumPy's random numbers."""

    SEVERITY = 3

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.operations: Sequence[Callable[[Image.Image], Image.Image]] = (
            ImageOps.autocontrast,
            ImageOps.equalize,
            lambda image: ImageOps.posterize(image, 4 - int(self._level(4))),
            lambda image: image.rotate(self._signed(int(self._level(30))), resample=BILINEAR),
            lambda image: ImageOps.solarize(image, 256 - int(self._level(256))),
            lambda image: self._moved(image, (1, self._signed(self._level(0.3)), 0, 0, 1, 0)),
            lambda image: self._moved(image, (1, 0, 0, self._signed(self._level(0.3)), 1, 0)),
            lambda image: self._moved(image, (1, 0, self._shift(image.width), 0, 1, 0)),
            lambda image: self._moved(image, (1, 0, 0, 0, 1, self._shift(image.height))),
        )

    def augmented(self, image: Image.Image) -> Image.Image:
        """Apply one operation."""
        return self.operations[int(self.random.integers(len(self.operations)))](image)

    def _level(self, most: float) -> float:
        return float(self.random.uniform(0.1, self.SEVERITY) * most / 10)

    def _signed(self, value: float) -> float:
        return -value if self.random.uniform() > 0.5 else value

    def _shift(self, side: int) -> float:
        return self._signed(int(self._level(side / 3)))

    def _moved(self, image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
        return image.transform(image.size, AFFINE, matrix, resample=BILINEAR)


class PillowAugMix(PillowOperations):
    """Augment one image."""

    WIDTH, DEEPEST = 3, 3

    def __call__(self, image: Image.Image) -> Levels:
        weights = self.random.dirichlet([1.0] * self.WIDTH).astype(np.float32)
        mixed = np.float32(self.random.beta(1, 1))
        own = np.asarray(image, dtype=np.float32)
        total = np.zeros_like(own)
        for weight in weights:
            chained = image
            for _ in range(self.random.integers(1, self.DEEPEST + 1)):
                chained = self.augmented(chained)
            total += weight * np.asarray(chained, dtype=np.float32)
        return ((1 - mixed) * own + mixed * total + 0.5).astype(np.uint8)


def on_pillow(name: str) -> Callable[[Image.Image], object]:
    """Return what augments one Pillow image: by our AugMix above, else by torchvision's class."""
    if name == "AugMix":
        return PillowAugMix()
    return on_tensors(name)


def on_tensors(name: str) -> Callable[..., object]:
    """Return torchvision v2's transform of this name, with its own settings."""
    transforms = import_torchvision("transforms.v2", purpose="this benchmark")
    made: Callable[..., object] = getattr(transforms, name)()
    return made
