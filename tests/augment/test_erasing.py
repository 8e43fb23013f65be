"""Erased boxes against a loop over images, and torchvision's own draws of their sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from entprop_fast.augment import Augmentation, Cutout, RandomErasing, parse_chain
from entprop_fast.counter_random import bits, keys_of, uniforms
from entprop_fast.optional import import_torchvision

SHAPES = ((5, 3, 9, 7), (4, 1, 8, 8), (0, 3, 5, 5), (1, 3, 1, 6), (3, 3, 2, 2))


def pictures(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3))
    return images.to(dtype) if dtype == torch.uint8 else (images / 255).to(dtype)


def _box(augment: Augmentation, drawn: list[float], height: int, width: int) -> list[int]:
    """Top, left, bottom and right of an image's box, as the papers' code draws them one by one."""
    if isinstance(augment, Cutout):
        half = augment.length // 2
        top, left = int(drawn[0] * height) - half, int(drawn[1] * width) - half
        return [max(top, 0), max(left, 0), top + augment.length, left + augment.length]
    assert isinstance(augment, RandomErasing)
    if drawn[0] >= augment.p:
        return [0, 0, 0, 0]
    for attempt in range(10):
        share = augment.min_area + (augment.max_area - augment.min_area) * drawn[3 + attempt]
        low, high = math.log(augment.min_ratio), math.log(augment.max_ratio)
        ratio = math.exp(low + (high - low) * drawn[13 + attempt])
        tall = round(math.sqrt(share * height * width * ratio))
        wide = round(math.sqrt(share * height * width / ratio))
        if tall < height and wide < width:
            top, left = int(drawn[1] * (height - tall + 1)), int(drawn[2] * (width - wide + 1))
            return [top, left, top + tall, left + wide]
    return [0, 0, 0, 0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "text", ["erasing", "erasing:p=1,value=random", "cutout:length=3", "cutout:length=4,value=1"]
)
def test_boxes_are_those_of_a_loop(shape: tuple[int, ...], dtype: torch.dtype, text: str) -> None:
    images = pictures(shape, dtype)
    augment: Any = parse_chain(text).parts[0]
    keys = keys_of(5, torch.arange(len(images)))
    erased = augment.apply(images, keys)
    expected = images.clone()
    for row, (image, key) in enumerate(zip(expected, keys, strict=True)):
        top, left, bottom, right = _box(augment, uniforms(key[None], 23)[0].tolist(), *shape[2:])
        if augment.value == "random":
            words = bits(keys_of(1, key[None]), -(-image.numel() // 8)).numpy()
            fill = torch.from_numpy(words.view(np.uint8).ravel()[: image.numel()].copy())
            fill = fill.view(image.shape)[:, top:bottom, left:right]
            fill = fill if dtype == torch.uint8 else (fill / 255).to(dtype)
        else:
            level = math.floor(augment.value * 255 + 0.5)
            fill = torch.tensor(level if dtype == torch.uint8 else augment.value)
        expected[row, :, top:bottom, left:right] = fill
    assert torch.equal(erased, expected)
    assert torch.equal(images, pictures(shape, dtype))
    turned = images.to(memory_format=torch.channels_last)
    again = augment.apply(turned, keys)
    assert torch.equal(again, expected)
    assert again.stride() == turned.stride()
    alone = [augment.apply(images[i : i + 1], keys[i : i + 1]) for i in range(len(images))]
    assert torch.equal(torch.cat([images[:0], *alone]), expected)


def test_sizes_are_distributed_as_torchvisions() -> None:
    """Heights, widths and places of boxes on wide images, where a box often has to be redrawn."""
    count, height, width = 4000, 9, 24
    v2 = import_torchvision("transforms.v2", purpose="the comparison")
    theirs = v2.RandomErasing(p=1.0)
    picture = torch.zeros(1, height, width)
    torch.manual_seed(0)
    params = [theirs.make_params([picture]) for _ in range(count)]
    drawn = [(p["h"], p["w"], p["i"], p["j"]) if p["v"] is not None else (0,) * 4 for p in params]
    ours = RandomErasing(p=1.0, value=1)(torch.zeros(count, 1, height, width), torch.arange(count))
    rows, columns = ours.amax((1, 3)), ours.amax((1, 2))
    firsts = [line.argmax(1) * line.amax(1) for line in (rows, columns)]
    found = torch.stack([rows.sum(1), columns.sum(1), *firsts], 1).double()
    expected = torch.tensor(drawn, dtype=torch.float64)
    for one, other in ((found, expected), (found**2, expected**2)):
        error = ((one.var(0) + other.var(0)) / count).sqrt()
        assert ((one.mean(0) - other.mean(0)).abs() < 4 * error).all()


def test_noise_is_even_and_an_image_keeps_its_own() -> None:
    images = torch.zeros(40, 3, 16, 16, dtype=torch.uint8)
    ids = torch.arange(40)
    noise = Cutout(length=64, value="random")(images, ids)
    assert abs(noise.double().mean() - 127.5) < 4 * 73.9 / noise.numel() ** 0.5
    assert len(noise.unique()) == 256
    assert len(noise.flatten(1).unique(dim=0)) == 40
    assert not torch.equal(noise, Cutout(length=64, value="random")(images, ids, epoch=1))


def test_no_box_is_drawn_where_none_fits_or_p_is_0() -> None:
    images = pictures((6, 3, 8, 8))
    assert torch.equal(RandomErasing(p=0)(images), images)
    assert torch.equal(RandomErasing(p=1, min_area=1.0, max_area=1.0)(images), images)


@pytest.mark.parametrize(
    ("cls", "given", "error", "named"),
    [
        (RandomErasing, {"p": 1.5}, ValueError, "p"),
        (RandomErasing, {"min_area": 0.5}, ValueError, "min_area"),
        (RandomErasing, {"max_ratio": 0.1}, ValueError, "max_ratio"),
        (RandomErasing, {"value": "rando"}, ValueError, "value='rando'"),
        (RandomErasing, {"value": 2}, ValueError, "value"),
        (RandomErasing, {"value": None}, TypeError, "value"),
        (RandomErasing, {"value": math.nan}, ValueError, "value"),
        (Cutout, {"length": 0}, ValueError, "length"),
        (Cutout, {"length": 1.5}, TypeError, "length"),
    ],
)
def test_refusals_name_the_option(
    cls: Any, given: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        cls(**given)
