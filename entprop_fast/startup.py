"""What keeps the package, or a command, from starting: one line for who typed a command."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from typing import NoReturn

_USAGE = 2
_WITH_VALUE = ("-X", "-W", "--check-hash-based-pycs")  # options of Python that the next word is of


def refuse(error: Exception) -> NoReturn:
    """Raise `error`; where a command of ours is being started, print it and exit with 2.

    While a module is imported nobody is there yet to catch it.
    """
    if not _is_command(sys.orig_argv):
        raise error
    print(f"error: {error}", file=sys.stderr)
    sys.exit(_USAGE)


def need(modules: Iterable[str], *, extra: str, purpose: str) -> None:
    """Refuse to go on without libraries of an extra.

    Args:
        modules: top-level names.
        extra: of this package, which brings them.
        purpose: what needs them, the beginning of the message.

    Raises:
        ImportError: see `refuse`.
    """
    if missing := [name for name in modules if not _is_there(name)]:
        what = ", ".join(missing)
        refuse(ImportError(f"{purpose} need {what}: pip install 'entprop-fast[{extra}]'"))


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # an import hook may say so
        return False


def _is_command(argv: list[str]) -> bool:
    """Whether Python was started as ``python -m entprop_fast...``."""
    words = iter(argv[1:])
    for word in words:
        if word == "-m":
            return next(words, "").partition(".")[0] == __package__
        if word in _WITH_VALUE:
            next(words, None)
        elif word == "-c" or not word.startswith("-"):
            break  # what follows belongs to somebody's program
    return False
