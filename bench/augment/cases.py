"""Define what is timed: an augmentation of whole batches, and its peers image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bench.augment.pillow_chains import on_pillow, on_tensors
from bench.augment.prime_batches import prime
from entprop_fast.augment import AUGMENTATIONS

Call = Callable[[], Any]


@dataclass(frozen=True)
class Size:
    """Hold a size of image, and how many of them each side takes."""

    side: int
    ours: int  # images of our batch
    theirs: int  # images that a peer takes, one after the other
    target: float  # times each peer
    rounds: int


@dataclass(frozen=True)
class Case:
    """Hold an augmentation by its name in a chain, and by its class's name in torchvision v2.

    PRIME is not in torchvision: its peer is what its authors run, on whole batches, in few rounds.
    """

    name: str
    peer: str | None

    def rounds(self, size: Size) -> int:
        """Return how often each side is timed."""
        return size.rounds if self.peer else 3


SIZES = (
    Size(32, ours=256, theirs=32, target=10.0, rounds=15),
    Size(224, ours=32, theirs=4, target=3.0, rounds=15),
)
AUGMENTED = (
    Case("augmix", "AugMix"),
    Case("trivialaugment", "TrivialAugmentWide"),
    Case("randaugment", "RandAugment"),
    Case("prime", None),
)
CASES = [(size, case) for size in SIZES for case in AUGMENTED]


def ours(case: Case, images: Tensor) -> Call:
    """Return a call that augments the batch, by other draws each time."""
    augment = AUGMENTATIONS[case.name]()
    ids = torch.arange(len(images))
    epochs = iter(range(2**31))
    return lambda: augment(images, ids, epoch=next(epochs))


def peers(case: Case, images: Tensor) -> dict[str, Call]:
    """Return the same of the others, each image by itself but for PRIME."""
    if case.peer is None:
        values = images / 255
        return {"authors": lambda: prime(values)}
    tensors = list(images)
    pictures = [Image.fromarray(one.permute(1, 2, 0).contiguous().numpy()) for one in images]
    of_tensor, of_picture = on_tensors(case.peer), on_pillow(case.peer)
    return {
        "torchvision": lambda: [of_tensor(one) for one in tensors],
        "pillow": lambda: [of_picture(one) for one in pictures],
    }
