"""The ways a command ends early; `entprop_fast.run.cli` gives each its exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from entprop_fast.stopping import Stopped

__all__ = ["RunFailed", "Stopped", "UsageError", "bad_input", "one_line"]


class UsageError(ValueError):
    """Bad usage or bad input: one line that names it and says what is valid."""


class RunFailed(RuntimeError):
    """A run that cannot go on, although its settings and data were accepted."""


@contextlib.contextmanager
def bad_input() -> Iterator[None]:
    """Turn what settings, data or missing libraries make fail within into a `UsageError`."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise UsageError(one_line(error)) from error


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
