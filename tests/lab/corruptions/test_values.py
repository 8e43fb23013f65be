"""Check each corruption against an implementation that takes one image at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from bench.corruptions import per_image
from bench.corruptions.per_image import Array, Draws
from entprop_fast.counter_random import (
    fold,
    integers,
    keys_of,
    paired_normals,
    paired_uniforms,
    row_keys,
)
from entprop_fast.lab.corruptions.common import COMMON_KINDS, EXTRA_KINDS, SCALES, Scale
from entprop_fast.lab.corruptions.common import frost as frost_module
from entprop_fast.lab.corruptions.common.generate import common_corruption
from entprop_fast.lab.corruptions.common.strengths import STRENGTHS
from entprop_fast.lab.corruptions.common.weather import plasma
from tests.lab.corruptions.spatter_per_image import spatter

KINDS = (*COMMON_KINDS, *EXTRA_KINDS)


class Counted:
    """The draws of one image, from its key; arrays ``[H, W, C]`` are drawn channel by channel."""

    def __init__(self, key: Tensor) -> None:
        self.key = key

    def stream(self, number: int) -> Draws:
        return Counted(keys_of(number, self.key))

    def normal(self, *shape: int) -> Array:
        return _shaped(paired_normals(self.key, math.prod(shape)), shape)

    def uniform(self, *shape: int) -> Array:
        return _shaped(paired_uniforms(self.key, math.prod(shape)), shape)

    def poisson(self, mean: Array) -> Array:
        return np.asarray(scipy.stats.poisson.ppf(self.uniform(*mean.shape), mean))

    def integers(self, *bounds: int) -> list[int]:
        return [int(one) for one in integers(self.key, bounds)]


def _shaped(values: Tensor, shape: tuple[int, ...]) -> Array:
    drawn = values[0].double().numpy()
    if len(shape) == 3 and shape[2] in (1, 3):
        return np.moveaxis(drawn.reshape(shape[2], *shape[:2]), 0, 2)
    return drawn.reshape(shape)


def pictures(count: int, *shape: int) -> Tensor:
    """Smooth coloured images of 8-bit levels, black and white among them."""
    small = torch.rand(count, shape[0], 5, 4)
    large = torch.nn.functional.interpolate(small, shape[1:], mode="bicubic")
    return ((large * 1.4 - 0.2).clamp(0, 1) * 255).round() / 255


def truth(images: Tensor, kind: str, severity: int, scale: Scale, seed: int, first: int) -> Tensor:
    """One image after the other, float64."""
    keys = row_keys(
        fold((19, seed, KINDS.index(kind), severity)), first, len(images), images.device
    )
    strength = STRENGTHS[scale][kind][severity - 1]
    results = []
    levels = (images.double() * 255).round() / 255  # as they come out of a file
    for i, image in enumerate(levels.permute(0, 2, 3, 1).numpy()):
        result = _function(kind, strength)(image.copy(), Counted(keys[i : i + 1]), *strength)
        results.append(np.clip(result, 0, 1))
    return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2)


def _function(kind: str, strength: tuple[float, ...]) -> Callable[..., Array]:
    if kind == "frost":
        textures = frost_module._textures(int(strength[2]), torch.device("cpu"))
        return per_image.frost(textures.permute(0, 2, 3, 1).double().numpy())
    return spatter if kind == "spatter" else per_image.FUNCTIONS[kind]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_the_per_image_one(kind: str, scale: Scale) -> None:
    for severity, shape in itertools.product((1, 2, 3, 4, 5), ((3, 32, 32), (1, 24, 37))):
        if kind == "saturate" and shape[0] == 1:
            continue
        images = pictures(2, *shape)
        made = common_corruption(images, kind, severity, scale=scale, seed=7, first=30)
        wanted = truth(images, kind, severity, scale, seed=7, first=30)
        difference = (made.double() - wanted).abs()
        # A random number of 2^-24 resolution may fall on the other side of a threshold, or a
        # rounding to whole levels go the other way: at a few pixels, not more.
        assert difference.median() < 2e-6, (severity, shape)
        few = 0.02 if kind == "spatter" else 0.002
        assert (difference > 2e-4).double().mean() < few, (severity, shape, difference.max())


def test_the_plasma_map_is_the_one_by_neighbours() -> None:
    keys = row_keys(3, 0, 2, torch.device("cpu"))
    random = 2 * paired_uniforms(keys, 64).view(2, 8, 8).double().numpy() - 1
    for i, made in enumerate(plasma(keys, 8, 1.75)):
        np.testing.assert_allclose(made.numpy(), per_image.plasma(random[i], 1.75), atol=1e-5)


def test_frost_textures_are_soft_wrap_round_and_differ() -> None:
    textures = frost_module._textures(5, torch.device("cpu"))
    assert textures.shape == (5, 3, 128, 128)
    assert 0 <= textures.min() and textures.max() <= 1
    assert 0.3 < textures.mean() < 0.7 and textures.std() > 0.1
    inner, seam = textures.diff(dim=3).abs().mean(), (textures[..., 0] - textures[..., -1]).abs()
    assert seam.mean() < 2 * inner
    assert (textures[1:] - textures[:1]).abs().mean(dim=(1, 2, 3)).min() > 0.05


@pytest.mark.parametrize("scale", SCALES)
def test_the_scales_are_whole(scale: Scale) -> None:
    assert tuple(STRENGTHS[scale]) == KINDS
    assert all(len(severities) == 5 for severities in STRENGTHS[scale].values())


def test_numbers_of_zoom_steps_are_numpys() -> None:
    counts = {s: [len(v) for v in STRENGTHS[s]["zoom_blur"]] for s in SCALES}
    assert counts == {"cifar-c": [7, 12, 16, 21, 26], "imagenet-c": [12, 16, 11, 13, 11]}
