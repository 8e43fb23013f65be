"""Stop work when a signal asks: a handler notes the signal, and every long loop asks `check`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType

# Ctrl-C; kill, timeout and schedulers; a closed terminal; Slurm's warning before a time limit.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_AGAIN = b"\nstopping; a second Ctrl-C ends at once and saves nothing\n"


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


class StopSignals:
    """The first signal that came is in `pending`; an exception in a handler could get lost."""

    def __init__(self) -> None:
        self.pending: int | None = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[StopSignals]:
        """Note the signals within; outside the main thread, where Python cannot, do nothing.

        One that was ignored before stays so: nohup ignores SIGHUP for what it starts, and a shell
        SIGINT for what a script starts in the background.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {one: signal.getsignal(one) for one in SIGNALS}
        taken = {k: v for k, v in before.items() if v not in (None, signal.SIG_IGN)}
        for one in taken:
            signal.signal(one, self._note)
        try:
            with watched(self):
                yield self
        finally:
            for one, handler in taken.items():
                signal.signal(one, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.pending is None:
            self.pending = signum
        if signum == signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)  # a second one ends the process, also in C++
            if sys.stderr is not None and os.isatty(2):
                os.write(2, _AGAIN)


_watched: ContextVar[StopSignals | None] = ContextVar("watched", default=None)


@contextlib.contextmanager
def watched(signals: StopSignals | None) -> Iterator[None]:
    """Let `check` look at `signals` within; None changes nothing."""
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
