"""Define what is timed: an augmentation of whole batches, and its peers image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bench.augment.pillow_chains import on_pillow, on_tensors
from bench.augment.pillow_pixmix import PillowPixMix
from bench.augment.prime_batches import prime
from entprop_fast.augment import AUGMENTATIONS, PixMix
from entprop_fast.augment.mixing_set import pictures_of

Call = Callable[[], Any]


@dataclass(frozen=True)
class Size:
    """Hold a size of image, and how many of them each side takes."""

    side: int
    ours: int  # images of our batch
    theirs: int  # images that a peer takes, one after the other
    target: float  # times each peer


@dataclass(frozen=True)
class Case:
    """Hold an augmentation by its name in a chain, and what it is timed against.

    `peer` is the class's name in torchvision v2; None where it has none: then the peer is what the
    authors run (`AUTHORS`).
    """

    name: str
    peer: str | None = None
    rounds: int = 15  # how often each side is timed


SIZES = (
    Size(32, ours=256, theirs=32, target=10.0),
    Size(224, ours=32, theirs=4, target=3.0),
)
AUGMENTED = (
    Case("augmix", "AugMix"),
    Case("trivialaugment", "TrivialAugmentWide"),
    Case("randaugment", "RandAugment"),
    Case("prime", rounds=3),  # its peer takes seconds
    Case("pixmix"),
)
CASES = [(size, case) for size in SIZES for case in AUGMENTED]


def ours(case: Case, images: Tensor) -> Call:
    """Return a call that augments the batch, by other draws each time."""
    augment = AUGMENTATIONS[case.name]()
    ids = torch.arange(len(images))
    epochs = iter(range(2**31))
    return lambda: augment(images, ids, epoch=next(epochs))


def peers(case: Case, images: Tensor) -> dict[str, Call]:
    """Return the same of the others: each image by itself, but for PRIME's batches."""
    if case.peer is None:
        return {"authors": AUTHORS[case.name](images)}
    of_tensor, of_picture = on_tensors(case.peer), on_pillow(case.peer)
    tensors, pictures = list(images), _pictures(images)
    return {
        "torchvision": lambda: [of_tensor(one) for one in tensors],
        "pillow": lambda: [of_picture(one) for one in pictures],
    }


def _pictures(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray(one.permute(1, 2, 0).contiguous().numpy()) for one in images]


def _prime(images: Tensor) -> Call:
    values = images / 255
    return lambda: prime(values)


def _pixmix(images: Tensor) -> Call:
    """Mix with the fractals that ours mixes with, at the size that ours cuts from."""
    ours = PixMix()
    side = images.shape[-1] * 9 // 8
    fractals = pictures_of(None, ours.pictures, side, 3, False, images.device)
    pictures, mix = _pictures(images), PillowPixMix(_pictures(fractals))
    return lambda: [mix(one) for one in pictures]


AUTHORS: dict[str, Callable[[Tensor], Call]] = {"prime": _prime, "pixmix": _pixmix}
