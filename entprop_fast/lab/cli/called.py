"""Know how the user typed a command, so that help, errors and hints name it so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from entprop_fast.lab.cli.commands import typed

_PROGRAM: ContextVar[tuple[str, ...]] = ContextVar("program", default=())


@contextlib.contextmanager
def called_through(*program: str) -> Iterator[None]:
    """Say that a command was typed as a word after these, ``entprop`` say, and not as a module."""
    token = _PROGRAM.set(program)
    try:
        yield
    finally:
        _PROGRAM.reset(token)


def words_of(module: str) -> list[str]:
    """Return the words that start a command: ``python -m entprop_fast.train``, ``entprop train``.

    Args:
        module: the command's door, ``entprop_fast.train``.
    """
    program = _PROGRAM.get()
    if not program:
        return ["python", "-m", module]
    return [*program, typed(module.rpartition(".")[2])]
