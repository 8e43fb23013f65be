"""Read the setting ``augment``: a chain of augmentations, and what of it readers or methods do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entprop_fast.augment import AUGMENTATIONS, Chain, CropFlip, parse_chain
from entprop_fast.lab.data.datasets import EMBEDDED
from entprop_fast.lab.data.image_files import RESIZED_CROP
from entprop_fast.lab.data.tensor_sets import is_tensor_set
from entprop_fast.name_errors import unknown
from entprop_fast.options import number, option

NONE = "none"
NAMES = tuple(dict.fromkeys((NONE, CropFlip.name, RESIZED_CROP, *AUGMENTATIONS)))
OF_METHODS = ("jsd",)  # options of a method that are written where the augmentation is

EXAMPLE = "such as crop-flip+augmix"
HELP = (
    "Augmentation of training images, a chain: parts joined by + in their order, with options as "
    "in augmix:severity=1. What is named is all there is. Parts: "
    f"{', '.join(NAMES)}. crop-flip pads by 4 black pixels; {RESIZED_CROP}, for images read from "
    "files, comes first and takes crops of 8 to 100 % of the area. augmix:jsd=12 sets the option "
    "jsd of the method."
)


@dataclass(frozen=True)
class AugmentSetting:
    """Hold a chain by who applies it.

    Attributes:
        reading: ``resized-crop-flip``, which whoever reads an image does, or ``none``.
        chain: what is done to whole batches on the device.
    """

    reading: str
    chain: Chain

    @property
    def only_moves(self) -> bool:
        """Whether it moves pixels alone, whatever their values mean."""
        return all(isinstance(part, CropFlip) for part in self.chain.parts)


def read_augment(text: str) -> AugmentSetting:
    """Read a chain, of which options of methods were taken (`without_options`).

    Raises:
        ValueError: an unknown name or option, with the nearest ones, or a part in a wrong place.
    """
    parts = _parts(text)
    if parts == [NONE]:
        return AugmentSetting(NONE, Chain())
    names = [part.partition(":")[0] for part in parts]
    for place, name in enumerate(names):
        if name not in NAMES:
            raise unknown("augmentation", name, NAMES)
        if name == NONE:
            raise ValueError("none stands alone")
        if name == RESIZED_CROP and place > 0:
            raise ValueError(f"{RESIZED_CROP} comes first: it is done while images are read")
        if name in (RESIZED_CROP, CropFlip.name) and name in names[:place]:
            raise ValueError(f"{name} is named twice")
    if names[0] != RESIZED_CROP:
        return AugmentSetting(NONE, parse_chain("+".join(parts)))
    if parts[0] != RESIZED_CROP:
        raise ValueError(f"{RESIZED_CROP} has no options")
    rest = "+".join(parts[1:]) or NONE
    return AugmentSetting(RESIZED_CROP, parse_chain(rest))


def augment_field() -> Any:
    """Declare the setting."""
    return option(NONE, HELP, unit=EXAMPLE, parse=augment_option, group="data")


def augment_option(value: Any) -> str:
    """Check the option ``augment``, in which options of a method may stand.

    Raises:
        TypeError, ValueError: it is not valid.
    """
    if not isinstance(value, str):
        raise TypeError(f"augment={value!r}: expected a string such as 'crop-flip+augmix'")
    try:
        read_augment(without_options(value)[0])
    except (TypeError, ValueError) as error:
        said = str(error).removeprefix(repr(value)).removeprefix(":").lstrip()
        raise ValueError(f"augment={value!r}: {said}") from None
    return value


def of_tensors(text: str) -> str:
    """Return the chain of images that a caller gives, checked.

    Raises:
        TypeError, ValueError: it is not valid, or begins with what is done while files are read.
    """
    if read_augment(augment_option(text)).reading == RESIZED_CROP:
        raise ValueError(f"augment={text!r}: it is for images read from files by their names")
    return text


def check_reading(text: str, dataset: str) -> None:
    """Refuse crops that are made while files are read, of a data set that has none.

    Args:
        text: the chain.
        dataset: its name, which tells whether it is whole tensors.

    Raises:
        ValueError: it is, and they are asked for.
    """
    whole = dataset == EMBEDDED or is_tensor_set(dataset)
    if whole and read_augment(text).reading == RESIZED_CROP:
        raise ValueError(
            f"augment={text!r}: {RESIZED_CROP} is for images read from files; {dataset!r} is whole "
            "tensors: crop-flip, say, or what may follow it"
        )


def without_reading(text: str) -> str:
    """Return a chain without the crops that are made while files are read."""
    parts = _parts(text)
    return "+".join(parts[1:] if parts[0] == RESIZED_CROP else parts) or NONE


def without_options(text: str) -> tuple[str, dict[str, str]]:
    """Take out what a chain's text sets of the method: ``augmix:jsd=12`` is augmix, and jsd 12.

    Raises:
        ValueError: one of them is given twice.
    """
    taken: dict[str, str] = {}
    kept = []
    for part in _parts(text):
        name, colon, options = part.partition(":")
        name, own = name.strip(), []
        for one in options.split(",") if colon else ():
            word, _, value = (side.strip() for side in one.partition("="))
            if word not in OF_METHODS:
                own.append(one)
            elif word in taken:
                raise ValueError(f"{text!r} gives {word} twice")
            else:
                taken[word] = value
        kept.append(f"{name}:{','.join(own)}" if own else name)
    return "+".join(kept), taken


def moved_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Move options of the method from the text of ``augment`` to their own names.

    Args:
        given: settings and options by name, some of them None.

    Raises:
        ValueError: such an option is given with another value, too, or its own is no number.
    """
    text = given.get("augment")
    if not isinstance(text, str):
        return dict(given)
    chain, taken = without_options(text)
    values = {name: _number(name, value) for name, value in taken.items()}
    for name, value in values.items():
        other = given.get(name)
        if other is not None and value != _number(name, other):
            raise ValueError(f"augment={text!r} sets {name}, and so does {name}={other}")
    return {**given, "augment": chain, **values}


def check_views(text: str, options: Mapping[str, Any]) -> None:
    """Refuse a method that compares views of each row with an augmentation that makes none.

    Args:
        text: the chain.
        options: of the method.

    Raises:
        ValueError: it makes none.
    """
    weight = options.get("jsd")
    if weight and read_augment(text).only_moves:
        raise ValueError(
            f"augment={text!r}: jsd={weight:g} compares augmented views of each row, and "
            "nothing here makes them: use crop-flip+augmix, or another part after the crop"
        )


def appended(chain: str, more: str) -> str:
    """Append a chain to another."""
    return "+".join(one for one in (chain, more) if one != NONE) or NONE


def _number(name: str, value: Any) -> float:
    try:
        return number(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name}={value!r}: expected a number") from None


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split("+")]
