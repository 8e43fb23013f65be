"""Say what there is to draw: Unicode's emoji without skin tones, their classes, and their names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Class -> Unicode's subgroups, by emojibase's numbers (``meta/groups.json`` names them).
_SUBGROUPS: dict[str, Iterable[int]] = {
    "activity": range(60, 65),  # events, medals, sports, games, arts
    "animal": range(34, 40),
    "face": range(14),  # smileys, faces of cats and monkeys
    "flag": range(97, 100),
    "food": range(42, 49),  # with drinks and dishes
    "hand": range(16, 23),  # with other parts of the body
    "object": (57, 58, *range(65, 83)),  # with luggage and clocks
    "person": range(23, 32),
    "place": range(49, 54),
    "plant": (40, 41),
    "sky": (59,),  # sky and weather
    "symbol": (14, 15, *range(83, 97)),  # with hearts
    "transport": range(54, 57),
}
CLASSES = tuple(_SUBGROUPS)

_LABELS = {
    number: CLASSES.index(name) for name, numbers in _SUBGROUPS.items() for number in numbers
}
_FAMILY, _TIME, _KEYCAP = 30, 58, 94  # subgroups
_CLOCK = re.compile(r"o.clock|-thirty")
_GENDER = re.compile(r"-200D-(2640|2642|27A1)")  # woman, man, and facing right
_ADULT = re.compile(r"^(1F468|1F469|1F9D1)(?=-|$)")  # man, woman, person


@dataclass(frozen=True)
class Concept:
    """Hold a thing that several artists drew.

    Attributes:
        code: of its characters, such as ``1F468-200D-1F373``.
        name: Unicode's.
        label: number of its class.
        group: what is drawn alike is one thing when data are split: men and women at the same
            work, clocks at all hours.
    """

    code: str
    name: str
    label: int
    group: str


def code_of(text: str) -> str:
    """Return a code without the mark that asks for a coloured picture."""
    return "-".join(part for part in text.upper().split("-") if part != "FE0F")


def concepts_of(emoji: Iterable[Mapping[str, Any]]) -> dict[str, Concept]:
    """Read emojibase's ``data.json``: code to concept, in Unicode's order.

    Skin tones are within an entry, and not looked at; letters of flags and parts have no class.
    """
    found = {}
    for one in sorted(emoji, key=lambda entry: int(entry.get("order", 0))):
        label = _LABELS.get(one.get("subgroup", -1))
        if label is None:
            continue
        code, name = code_of(str(one["hexcode"])), str(one["label"])
        found[code] = Concept(code, name, label, _group(code, name, one["subgroup"]))
    return found


def names_of(concepts: Mapping[str, Concept], unicode_names: Mapping[str, str]) -> dict[str, str]:
    """Return the names that artists may call things by, as `simple` writes them, to codes.

    Unicode's present names come before its characters' first ones.
    """
    names: dict[str, str] = {}
    for concept in concepts.values():
        names.setdefault(simple(concept.name), concept.code)
    for code, name in unicode_names.items():
        if code_of(code) in concepts:
            names.setdefault(simple(str(name)), code_of(code))
    return names


def simple(name: str) -> str:
    """Return the letters and digits of a name, without accents, spaces and dashes."""
    plain = unicodedata.normalize("NFKD", name.replace("&", "and"))
    return re.sub(r"[^a-z0-9#*]", "", plain.encode("ascii", "ignore").decode().lower())


def _group(code: str, name: str, subgroup: int) -> str:
    if subgroup == _FAMILY:
        return "family"
    if subgroup == _KEYCAP:
        return "keycap"
    if subgroup == _TIME and _CLOCK.search(name):
        return "clock"
    return _ADULT.sub("1F9D1", _GENDER.sub("", code))
