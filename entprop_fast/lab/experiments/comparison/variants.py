"""Read the rows of a comparison: a method, or a method with options of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from entprop_fast import name_errors
from entprop_fast.lab.training.config import (
    OPTION_NAMES,
    Config,
    MethodOptions,
    Value,
    number,
    value_types,
)
from entprop_fast.methods import METHODS

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

_TYPES = value_types(MethodOptions) | {name: value_types(Config)[name] for name in OWN_SETTINGS}
_SWITCHES = {"true": True, "false": False}


@dataclass(frozen=True)
class Variant:
    """A method and what it is given beyond the recipe; `name` is what the user wrote."""

    name: str
    method: str
    settings: dict[str, Value]

    @property
    def slug(self) -> str:
        """Name as part of a folder's."""
        return re.sub(r"[^\w.=,-]+", "-", self.name)


def parse(text: str) -> Variant:
    """Read the variant that ``entprop`` or ``entprop:score=random,k=0.5`` names.

    Raises:
        ValueError: an unknown method or option, or a value that is not of the option's type.
    """
    method, _, rest = text.partition(":")
    if method not in METHODS:
        raise name_errors.unknown("method", method, METHODS)
    settings: dict[str, Value] = {}
    for part in rest.split(",") if ":" in text else ():
        name, equals, value = part.strip().partition("=")
        name = name.replace("-", "_")
        if not equals:
            raise ValueError(f"{text!r}: {part!r} must be option=value")
        if name not in _TYPES:
            raise ValueError(f"{text!r}: {name_errors.unknown('option', name, _TYPES)}")
        if name in settings:
            raise ValueError(f"{text!r} gives {name} twice")
        settings[name] = _value(text, name, value.strip())
    return Variant(text, method, settings)


def parse_all(texts: Sequence[str]) -> list[Variant]:
    """Read each text's variant.

    Raises:
        ValueError: as `parse`; none; or one folder name for two of them.
    """
    if not texts:
        raise ValueError(f"--methods names none: any of {', '.join(METHODS)}")
    found: dict[str, Variant] = {}
    for variant in map(parse, texts):
        # Some file systems do not tell capitals from small letters.
        other = found.setdefault(variant.slug.casefold(), variant)
        if other is not variant:
            raise ValueError(f"--methods: {variant.name!r} and {other.name!r} are one row")
    return list(found.values())


def options_of(variant: Variant) -> dict[str, Value]:
    """Return the variant's settings that are options of its method."""
    return {name: value for name, value in variant.settings.items() if name in OPTION_NAMES}


def _value(text: str, name: str, value: str) -> Value:
    wanted = _TYPES[name]
    try:
        if wanted is bool:
            return _SWITCHES[value.lower()]
        if wanted is float:
            return number(value)
        return int(value) if wanted is int else value
    except (KeyError, ValueError):
        valid = {bool: "true or false", int: "an integer", float: "a number such as 4/255"}
        raise ValueError(f"{text!r}: {name} must be {valid[wanted]}, got {value!r}") from None
