"""Whether the work is to stop: a signal handler notes it, and every long loop asks here."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol


class Stopped(BaseException):
    """A signal asked the work to stop, and what had to be saved is saved.

    Like KeyboardInterrupt no `Exception`: a handler of errors must not swallow it.

    Attributes:
        signum: of the signal.
        saved: what is kept, in words; None: nothing was begun that could be gone on with.
    """

    def __init__(self, signum: int, saved: str | None = None) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.saved = saved


class Noted(Protocol):
    """Where a signal is noted: `pending` is its number once it has come."""

    pending: int | None


_watched: ContextVar[Noted | None] = ContextVar("watched", default=None)


@contextlib.contextmanager
def watched(signals: Noted | None) -> Iterator[None]:
    """Within, `check` looks at `signals`; None changes nothing."""
    if signals is None:
        yield
        return
    token = _watched.set(signals)
    try:
        yield
    finally:
        _watched.reset(token)


def check() -> None:
    """Raise `Stopped` if a signal was noted; a loop calls it at least once a second.

    Called where the state is whole: between steps, batches and files. It costs 0.1 microseconds.
    """
    noted = _watched.get()
    if noted is not None and noted.pending is not None:
        raise Stopped(noted.pending)
