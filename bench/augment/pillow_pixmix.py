"""Mix one Pillow image after another with pictures, as PixMix's authors do.

Written from the description of github.com/andyzoujm/pixmix (`pixmix` of cifar.py; the operations
and `add`, `multiply`, `get_ab` of pixmix_utils.py), with the settings for CIFAR. The pictures lie
resized in memory, where the authors read and resize a file for each image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.augment.pillow_chains import PillowOperations


class PillowPixMix(PillowOperations):
    """Mix one image, to a floating tensor in [0, 1]."""

    K, BETA = 4, 3.0

    def __init__(self, pictures: Sequence[Image.Image]) -> None:
        super().__init__()
        self.pictures = pictures  # RGB, larger than the images: each takes a crop

    def __call__(self, image: Image.Image) -> Tensor:
        picture = self._crop(self.pictures[int(self.random.integers(len(self.pictures)))], image)
        mixed = _tensor(self.augmented(image) if self._half() else image)
        for _ in range(self.random.integers(self.K + 1)):
            other = _tensor(self.augmented(image) if self._half() else picture)
            a, b = self._weights()
            if self._half():
                mixed = (2 * mixed) ** a * (2 * other).clip(1e-37) ** b / 2
            else:
                mixed = (a * (2 * mixed - 1) + b * (2 * other - 1) + 1) / 2
            mixed = mixed.clip(0, 1)
        return mixed

    def _half(self) -> bool:
        return bool(self.random.random() < 0.5)

    def _weights(self) -> tuple[float, float]:
        if self._half():
            return self.random.beta(self.BETA, 1), self.random.beta(1, self.BETA)
        return 1 + self.random.beta(1, self.BETA), -self.random.beta(1, self.BETA)

    def _crop(self, picture: Image.Image, image: Image.Image) -> Image.Image:
        left = int(self.random.integers(picture.width - image.width + 1))
        top = int(self.random.integers(picture.height - image.height + 1))
        return picture.crop((left, top, left + image.width, top + image.height))


def _tensor(image: Image.Image) -> Tensor:
    """Return what torchvision's ``ToTensor`` does."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
