"""The ways a command ends early; `entprop_fast.run.cli` gives each its exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from entprop_fast.data.readers import ReadersFailed
from entprop_fast.stopping import Stopped

__all__ = ["RunFailed", "Stopped", "UsageError", "bad_input", "failing", "one_line"]


class UsageError(ValueError):
    """Bad usage or bad input: one line that names it and says what is valid."""


class RunFailed(RuntimeError):
    """A run that cannot go on, although its settings and data were accepted."""


@contextlib.contextmanager
def bad_input() -> Iterator[None]:
    """Turn what settings, data or missing libraries make fail within into a `UsageError`.

    Raises:
        UsageError: see above.
        RunFailed: a process that reads images was killed, or has not what it needs.
    """
    try:
        yield
    except ReadersFailed as error:
        raise RunFailed(one_line(error)) from error
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise UsageError(one_line(error)) from error


@contextlib.contextmanager
def failing(way_on: str) -> Iterator[None]:
    """Turn what the disk makes fail within into a `RunFailed` that ends with the way to go on."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"{one_line(error)}; {way_on}") from error


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
