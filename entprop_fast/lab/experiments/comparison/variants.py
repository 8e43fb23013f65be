"""Read the rows of a comparison: a method, with options and augmentations of its own if wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from entprop_fast import name_errors
from entprop_fast.lab.training.augment_setting import NONE, augment_option, without_options
from entprop_fast.lab.training.config import SETTINGS
from entprop_fast.lab.training.method_settings import Value, methods_by_option
from entprop_fast.methods import METHODS
from entprop_fast.options import assignments, read

# Settings a row may have of its own; the others decide data, weights or order, equal in all rows.
OWN_SETTINGS = (
    "epochs",
    "lr",
    "weight_decay",
    "optimizer",
    "momentum",
    "nesterov",
    "schedule",
    "warmup",
    "decay_every",
    "amp",
)


@dataclass(frozen=True)
class Variant:
    """Hold a method and its settings beyond the recipe; `name` is what the user wrote.

    `augment` is a chain that is appended to the one of all rows.
    """

    name: str
    method: str
    settings: dict[str, Value]
    augment: str = NONE

    @property
    def slug(self) -> str:
        """Name as part of a folder's."""
        return re.sub(r"[^\w.=,@+-]+", "-", self.name)


def parse(text: str) -> Variant:
    """Read the variant that ``entprop`` or ``entprop:score=random,k=0.5@augmix:jsd=12`` names.

    Raises:
        ValueError: an unknown method, option or augmentation, or a value that is not of the
            option's type.
    """
    options = {name: next(iter(one.values())) for name, one in methods_by_option().items()}
    known = options | {name: SETTINGS[name] for name in OWN_SETTINGS}
    head, at, chain = text.partition("@")
    method, colon, rest = head.partition(":")
    if method not in METHODS:
        raise name_errors.unknown("method", method, METHODS)
    given = assignments(rest, text) if colon else {}
    augment, of_method = _chain(chain, text) if at else (NONE, {})
    for name in of_method:
        if name in given:
            raise ValueError(f"{text!r} gives {name} twice")
    settings: dict[str, Value] = {}
    for name, value in (given | of_method).items():
        if name not in known:
            raise ValueError(f"{text!r}: {name_errors.unknown('option', name, known)}")
        try:
            settings[name] = read(known[name], value, words=True)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{text!r}: {error}") from None
    return Variant(text, method, settings, augment)


def _chain(text: str, row: str) -> tuple[str, dict[str, str]]:
    """Return the chain that a row names after ``@``, and the options of the method in its text."""
    try:
        augment, options = without_options(augment_option(text))
    except ValueError as error:
        raise ValueError(f"{row!r}: {error}") from None
    if augment == NONE:
        raise ValueError(
            f"{row!r}: what stands after @ is appended to the augmentation of all rows, and none "
            f"appends nothing: write {row.partition('@')[0]!r}, and --augment none for all rows"
        )
    return augment, options


def parse_all(texts: Sequence[str]) -> list[Variant]:
    """Read each text's variant.

    Raises:
        ValueError: as `parse`; or one folder name for two of them.
    """
    found: dict[str, Variant] = {}
    for variant in map(parse, texts):
        # Some file systems do not tell capitals from small letters.
        other = found.setdefault(variant.slug.casefold(), variant)
        if other is not variant:
            raise ValueError(f"--methods: {variant.name!r} and {other.name!r} are one row")
    return list(found.values())


def options_of(variant: Variant) -> dict[str, Value]:
    """Return the variant's settings that are options of its method."""
    return {name: value for name, value in variant.settings.items() if name not in SETTINGS}
