"""Erase a box of each image: random erasing and cutout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.counter_random import bits, keys_of, uniforms
from entprop_fast.devices import widest_float
from entprop_fast.ops.layout import same_layout
from entprop_fast.options import number, option

_TRIES = 10  # torchvision's
_NOISE = 1  # the stream of an image's noise, beside that of its box


def _fill(value: object) -> float | str:
    """Check what a box is filled with: ``random``, or a number in [0, 1], also as text."""
    if value == "random":
        return "random"
    wrong = f"value={value!r}: expected 'random', or a number in [0, 1]"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(wrong)
    try:
        filled = number(value) if isinstance(value, str) else float(value)
    except (ValueError, ZeroDivisionError):
        raise ValueError(wrong) from None
    if not 0 <= filled <= 1:
        raise ValueError(wrong)
    return filled


@dataclass(frozen=True, kw_only=True)
class RandomErasing(Augmentation):
    """Fill a box of random area, shape and place (Zhong et al., AAAI 2020; `erasing` in a chain).

    Defaults and order of the draws are those of torchvision's ``RandomErasing``: a box that does
    not fit is drawn anew, up to ten times, after which the image stays as it is. Here all ten are
    drawn, and the first that fits counts. ``random`` is noise as the paper fills with, even over
    the 256 levels; torchvision's is normal, made for images that are normalised already::

        RandomErasing(p=1.0, value="random")(images)
    """

    name = "erasing"
    p: float = option(0.5, "Probability that an image is erased from.", low=0, high=1)
    min_area: float = option(
        0.02, "Smallest area of the box.", low=0, high=1, open_low=True, unit="share of the image"
    )
    max_area: float = option(
        0.33, "Largest area of the box.", low=0, high=1, open_low=True, unit="share of the image"
    )
    min_ratio: float = option(0.3, "Smallest height over width of the box.", low=0, open_low=True)
    max_ratio: float = option(3.3, "Largest height over width of the box.", low=0, open_low=True)
    value: str | float = option(
        0.0, "What fills the box: a number in [0, 1], or random.", parse=_fill
    )

    def __post_init__(self) -> None:
        """Check every option, and that the smallest are not above the largest."""
        super().__post_init__()
        for name in ("area", "ratio"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise ValueError(f"min_{name}={low!r} is above max_{name}={high!r}")

    def apply(self, images: Tensor, keys: Tensor) -> Tensor:
        """Erase a box of some of the images."""
        height, width = images.shape[2:]
        drawn = uniforms(keys, 3 + 2 * _TRIES).to(widest_float(images.device))
        chance, down, across = drawn[:, :3].unbind(1)
        area, shape = drawn[:, 3:].view(-1, 2, _TRIES).unbind(1)  # [B, tries]
        area = (self.min_area + (self.max_area - self.min_area) * area) * (height * width)
        low, high = math.log(self.min_ratio), math.log(self.max_ratio)
        ratio = (low + (high - low) * shape).exp()
        tall, wide = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (tall < height) & (wide < width)
        first = fits.to(torch.uint8).argmax(1, keepdim=True)  # 0 where none fits
        erased = fits.gather(1, first)[:, 0] & (chance < self.p)
        tall, wide = (size.gather(1, first)[:, 0] * erased for size in (tall, wide))
        top = (down * (height - tall + 1)).floor()
        left = (across * (width - wide + 1)).floor()
        return _filled(images, _box(images, top, left, tall, wide), self.value, keys)


@dataclass(frozen=True, kw_only=True)
class Cutout(Augmentation):
    """Fill a square of each image, which may reach over the border (DeVries and Taylor, 2017).

    Its centre is any pixel. Length 16 is the paper's for CIFAR-10 and other images of 32 pixels
    (8 for CIFAR-100, 20 for SVHN). The paper fills normalised images with zero, the mean colour;
    images in [0, 1] get the middle::

        Cutout(length=8)(images)
    """

    name = "cutout"
    length: int = option(16, "Side of the square.", low=1, unit="pixels")
    value: str | float = option(
        0.5, "What fills the square: a number in [0, 1], or random.", parse=_fill
    )

    def apply(self, images: Tensor, keys: Tensor) -> Tensor:
        """Cut a square out of every image."""
        height, width = images.shape[2:]
        y, x = uniforms(keys, 2).to(widest_float(images.device)).unbind(1)
        top = (y * height).floor() - self.length // 2
        left = (x * width).floor() - self.length // 2
        size = torch.full_like(top, self.length)
        return _filled(images, _box(images, top, left, size, size), self.value, keys)


def _box(images: Tensor, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor) -> Tensor:
    """Return which pixels lie in each image's box, bool ``[B, 1, H, W]``."""
    y = torch.arange(images.shape[2], device=images.device)
    x = torch.arange(images.shape[3], device=images.device)
    rows = (y >= top[:, None]) & (y < (top + tall)[:, None])  # [B, H]
    columns = (x >= left[:, None]) & (x < (left + wide)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _filled(images: Tensor, box: Tensor, value: float | str, keys: Tensor) -> Tensor:
    """Put a number, or noise of its own for each pixel and channel, into the boxes."""
    whole = images.dtype == torch.uint8
    if not isinstance(value, str):
        filled = math.floor(255 * value + 0.5) if whole else value
        return images.clone().masked_fill_(box, filled)  # out of place loses channels_last
    size = math.prod(images.shape[1:])
    words = bits(keys_of(_NOISE, keys), -(-size // 8))  # eight levels a word
    noise = words.view(torch.uint8)[:, :size].unflatten(1, images.shape[1:])
    noise = noise if whole else (noise.to(torch.float32) / 255).to(images.dtype)
    return same_layout(torch.where(box, noise, images), images)
