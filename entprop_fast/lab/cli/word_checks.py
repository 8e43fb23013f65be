"""Refuse words of a command line that tyro would take, or would refuse in a box of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Mapping, Sequence
from itertools import takewhile

from entprop_fast.lab.training.errors import UsageError
from entprop_fast.options import number

_END = "--"  # of the flags


def check_values(words: Sequence[str], metavars: Mapping[str, str]) -> None:
    """Refuse a flag without its value, which tyro would report in a box and by no public hook.

    One of several values would be as if it had not been given.

    Args:
        words: of the command line.
        metavars: the flags that take values, and what these are called.

    Raises:
        UsageError: one has none.
    """
    for word, after in zip(words, [*words[1:], _END], strict=False):
        if word == _END:
            return
        metavar = metavars.get(word.replace("_", "-"))
        if metavar is not None and after.startswith("-") and not _is_number(after):
            raise UsageError(f"{word}: a value is missing: {metavar}")


def check_once(words: Sequence[str], several: Container[str]) -> None:
    """Refuse a flag of several values that is given twice: the later would replace the earlier.

    Args:
        words: of the command line.
        several: the flags that take several values.

    Raises:
        UsageError: one is given twice.
    """
    given = set()
    for word in takewhile(lambda one: one != _END, words):
        name = word.partition("=")[0].replace("_", "-")
        if name in given:
            raise UsageError(f"{name} is given twice; it takes several values: {name} A B")
        if name in several:
            given.add(name)


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError, ZeroDivisionError):
        number(text)
        return True
    return False
