"""Say in one line what keeps a command from starting."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

_USAGE = 2
_CONSOLE = "entprop"  # the script that pip writes
_WITH_VALUE = ("-X", "-W", "--check-hash-based-pycs")  # options of Python that the next word is of


def refuse(error: Exception) -> NoReturn:
    """Raise `error`; where a command of ours is being started, print it and exit with 2.

    While a module is imported nobody is there yet to catch it.
    """
    if not _is_command(sys.orig_argv):
        raise error
    print(f"error: {error}", file=sys.stderr)
    sys.exit(_USAGE)


def _is_command(argv: list[str]) -> bool:
    """Return whether Python was started as ``python -m entprop_fast...`` or as ``entprop``."""
    words = iter(argv[1:])
    for word in words:
        if word == "-m":
            return next(words, "").partition(".")[0] == __package__
        if word in _WITH_VALUE:
            next(words, None)
        elif Path(word).name == _CONSOLE:
            return True
        elif word == "-c" or not word.startswith("-"):
            break  # what follows belongs to somebody's program
    return False
