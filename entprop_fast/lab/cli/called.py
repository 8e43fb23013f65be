"""Know how the user typed a command, so that help, errors and hints name it so."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

from entprop_fast.lab.cli.commands import typed

_PROGRAM: ContextVar[tuple[str, ...]] = ContextVar("program", default=())
# How an error begins that names a setting: time='20', patience=3, unknown log 'x', device must be.
_NAMED = re.compile(r"(unknown )?(\w+)(?= ?=| ['\"]| must )")
_FLAGS: ContextVar[Mapping[str, str]] = ContextVar("flags")


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


def remember_flags(typed_as: Mapping[str, str]) -> None:
    """Remember the flags of this command line: a setting's name to the flag that gave it."""
    _FLAGS.set(dict(typed_as))


def with_flags(message: str) -> str:
    """Name the setting that an error begins with as it was typed: ``--time='20'``, not ``time=``.

    What the command line did not say, but a recipe, keeps its name.
    """
    found = _NAMED.match(message)
    flag = found and _FLAGS.get({}).get(found[2])
    if not found or not flag:
        return message
    rest = message[found.end() :]
    if flag.startswith("--no-"):
        rest = rest.removeprefix("=False")
    return f"{found[1] or ''}{flag}{rest}"
