"""Refuse a name that does not exist, in one way."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHORT_LIST = 16


def unknown(kind: str, value: object, known: Iterable[str]) -> ValueError:
    """Return the error for a name that is not among ``known``; the caller raises it.

    Args:
        kind: what was being named, in the caller's words (``"dataset"``, ``"score"``).
        value: the name that was given.
        known: every valid name. Listed in full when there are few; the nearest ones come first.

    Returns:
        A ``ValueError`` that names the argument, its value and the nearest valid names.
    """
    names = list(known)
    nearest = _nearest(str(value), names)
    message = f"unknown {kind} {value!r}"
    if nearest:
        message += f"; nearest: {', '.join(nearest)}"
    if len(names) <= _SHORT_LIST:
        message += f"; known: {', '.join(names) or 'none'}"
    elif not nearest:
        message += f"; none of the {len(names)} known names is near"
    return ValueError(message)


def _nearest(value: str, names: list[str]) -> list[str]:
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(name.casefold(), name)
    return [folded[match] for match in difflib.get_close_matches(value.casefold(), folded, n=5)]
