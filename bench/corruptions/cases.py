"""Define what is timed: every common kind at all five severities, in batches and image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from bench.corruptions import per_image
from bench.corruptions.per_image import Array, Draws
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS, Scale, corrupted_bytes
from entprop_fast.lab.corruptions.common import frost as frost_module
from entprop_fast.lab.corruptions.common.strengths import STRENGTHS, Severities

Call = Callable[[], Any]


@dataclass(frozen=True)
class Size:
    """Hold a size of image, and how many of them stand for how many."""

    side: int
    scale: Scale
    ours: int  # images in our batch
    theirs: int  # images that the other chain takes
    wanted: int  # images that the table's times are for
    target: float | None  # times the other chain, all kinds together
    rounds: int


SIZES = (
    Size(32, "cifar-c", ours=512, theirs=8, wanted=10_000, target=10.0, rounds=5),
    Size(224, "imagenet-c", ours=4, theirs=1, wanted=256, target=None, rounds=3),
)
CASES = [(size, kind) for size in SIZES for kind in COMMON_KINDS]


def photographs(count: int, side: int) -> Tensor:
    """Cut scikit-learn's two photographs, at random places and zooms, as 8-bit levels."""
    pictures = [
        torch.from_numpy(one.copy()).permute(2, 0, 1) for one in load_sample_images().images
    ]
    generator = torch.Generator().manual_seed(0)
    cuts = []
    for i in range(count):
        picture = pictures[i % 2]
        wide = int(torch.randint(max(side, 64), 400, (), generator=generator))
        top, left = (
            int(torch.randint(whole - wide, (), generator=generator)) for whole in picture.shape[1:]
        )
        cut = picture[None, :, top : top + wide, left : left + wide].float() / 255
        cuts.append(torch.nn.functional.interpolate(cut, (side, side), mode="area"))
    return (torch.cat(cuts) * 255).round().to(torch.uint8)


def ours(levels: Tensor, kind: str, scale: Scale) -> Call:
    """Return a call that corrupts the batch in all severities, from bytes to bytes."""

    def call() -> None:
        for severity in SEVERITIES:
            corrupted_bytes(levels, kind, severity, scale=scale)

    return call


def theirs(levels: Tensor, kind: str, scale: Scale) -> Call:
    """Return the same call, one image after the other, with NumPy's random numbers."""
    pictures = list(levels.permute(0, 2, 3, 1).contiguous().numpy())
    strengths = STRENGTHS[scale][kind]
    if kind in per_image.OF_PICTURES:
        return _of_pictures(pictures, kind, strengths)
    if kind == "frost":
        textures = frost_module._textures(int(strengths[0][2]), torch.device("cpu"))
        function = per_image.frost(textures.permute(0, 2, 3, 1).double().numpy())
    else:
        function = per_image.FUNCTIONS[kind]
    draws = NumpyDraws()

    def call() -> None:
        for strength in strengths:
            for picture in pictures:
                made = function(picture / 255, draws, *strength)
                (np.clip(made, 0, 1) * 255).astype(np.uint8)

    return call


def _of_pictures(pictures: Sequence[Array], kind: str, strengths: Severities) -> Call:
    opened = [Image.fromarray(picture) for picture in pictures]
    function = per_image.OF_PICTURES[kind]

    def call() -> None:
        for (strength,) in strengths:
            for picture in opened:
                np.asarray(function(picture, strength))

    return call


class NumpyDraws:
    """Make `Draws` as a chain of NumPy would."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def stream(self, number: int) -> Draws:
        return self

    def normal(self, *shape: int) -> Array:
        return self.random.standard_normal(shape)

    def uniform(self, *shape: int) -> Array:
        return self.random.random(shape)

    def poisson(self, mean: Array) -> Array:
        return self.random.poisson(mean)

    def integers(self, *bounds: int) -> list[int]:
        return [int(self.random.integers(bound)) for bound in bounds]
