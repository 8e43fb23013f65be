"""Read and apply a chain of augmentations, ``crop-flip+augmix:severity=1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.names import AUGMENTATIONS
from entprop_fast.counter_random import fold, keys_of
from entprop_fast.name_errors import unknown
from entprop_fast.options import assignments, options_of, read

_PLACE = 1  # the streams of a chain's parts


@dataclass(frozen=True, kw_only=True)
class Chain(Augmentation):
    """Apply augmentations in order.

    The first one draws from an image's key itself, so that what follows does not change it; each
    later one from a key of its own.
    """

    parts: tuple[Augmentation, ...] = ()

    def __post_init__(self) -> None:
        """Check every part."""
        super().__post_init__()
        if not isinstance(self.parts, list | tuple):
            raise TypeError(f"parts={self.parts!r}: expected a tuple of augmentations")
        for part in self.parts:
            if not isinstance(part, Augmentation):
                raise TypeError(f"parts hold {part!r}: expected augmentations")
        object.__setattr__(self, "parts", tuple(self.parts))

    def apply(self, images: Tensor, keys: Tensor) -> Tensor:
        """Augment by each part in turn."""
        return apply_parts(self.parts, images, keys) if self.parts else images.clone()


def apply_parts(
    parts: Sequence[Augmentation], images: Tensor, keys: Tensor, *, start: int = 0
) -> Tensor:
    """Apply the parts of a chain from number `start` on, the others having been applied."""
    for place, part in enumerate(parts[start:], start):
        # A part folds small numbers into its key, too: a place alone could meet one of them.
        own = keys if place == 0 else keys_of(fold((_PLACE, place)), keys)
        images = part.apply(images, own)
    return images


def parse_chain(text: str, *, seed: int = 0) -> Chain:
    """Make the augmentations that a text names, joined by ``+``; ``none`` makes an empty chain.

    Args:
        text: ``crop-flip+augmix``, or with options ``augmix:severity=1,width=2``.
        seed: of the chain's draws for images that are given by number.

    Raises:
        TypeError: `text` is no string.
        ValueError: an unknown name or option, with the nearest ones, or a value that is not valid.
    """
    if not isinstance(text, str):
        raise TypeError(f"chain is a {type(text).__name__}: expected text, as 'crop-flip+augmix'")
    names = [one.strip() for one in text.split("+")]
    if names == ["none"]:
        return Chain(seed=seed)
    if "none" in names:
        raise ValueError(f"{text!r}: none stands alone, or not at all")
    return Chain(parts=tuple(_part(one, text) for one in names), seed=seed)


def _part(text: str, whole: str) -> Augmentation:
    name, colon, rest = text.partition(":")
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, ("none", *AUGMENTATIONS))
    given = assignments(rest, whole) if colon else {}
    known = options_of(AUGMENTATIONS[name])
    for option in given:
        if option not in known:
            raise ValueError(f"{whole!r}: {unknown(f'option of {name}', option, known)}")
    values: Mapping[str, Any] = {
        option: read(known[option], value, words=True) for option, value in given.items()
    }
    return AUGMENTATIONS[name](**values)
