"""The ways a command ends early; `entprop_fast.run.cli` gives each its exit code."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


class UsageError(ValueError):
    """Bad usage or bad input: one line that names it and says what is valid."""


class RunFailed(RuntimeError):
    """A run that cannot go on, although its settings and data were accepted."""


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived, and what had to be saved is saved.

    Like KeyboardInterrupt no `Exception`: a handler of errors must not swallow it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


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
