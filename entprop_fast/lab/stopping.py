"""Stop work when a signal asks: a handler notes the signal, and every long loop asks `check`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType

from entprop_fast.lab import job
from entprop_fast.lab.job import phases

# Ctrl-C; kill, timeout and schedulers; a closed terminal; Slurm's warning before a time limit.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_FORGETTING = 0.99  # of a long wait, with each shorter one

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


class OutOfTime(Stopped):
    """The time limit is near, and what had to be saved is saved; no failure."""

    def __init__(self, limit: str) -> None:
        BaseException.__init__(self, f"the time limit of {limit}")
        self.signum, self.saved = 0, None


class TimeLimit:
    """Say when a limit is near: when work of the usual length, and a save, would end beyond it.

    Args:
        seconds: from now.
        words: how the limit was typed.

    Attributes:
        reserve: seconds that a save is given.
    """

    def __init__(self, seconds: float, words: str) -> None:
        self.end, self.words = time.monotonic() + seconds, words
        self.reserve = min(1.0, 0.05 * seconds)
        self._last: float | None = None
        self._usual = 0.0  # seconds between two looks, the longest of late

    def forget(self) -> None:
        """Forget how long work took so far: what follows is of another kind."""
        self._last, self._usual = None, 0.0

    def near(self) -> bool:
        """Look at the clock."""
        now = time.monotonic()
        if self._last is not None:
            self._usual = max(now - self._last, _FORGETTING * self._usual)
        self._last = now
        return now + self._usual + self.reserve >= self.end


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
_limit: ContextVar[TimeLimit | None] = ContextVar("limit", default=None)
_halts: list[Exception] = []  # of any thread
_agreed: ContextVar[bool] = ContextVar("agreed", default=False)


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
    """Raise `Stopped` if a signal was noted or time is up; a loop calls it at least once a second.

    What another thread found may `halt` the work, too.

    Called where the state is whole: between steps, batches and files. It costs 0.2 microseconds.
    A process of a job goes on, for the others would wait for it, unless this is `agreed` on.
    """
    if job.current().world > 1 and not _agreed.get():
        return
    stop(*wishes())


def wishes() -> tuple[int, bool]:
    """Return the number of a signal that came, or 0, and whether time is up."""
    if _halts:
        raise _halts[0]
    noted, limit = _watched.get(), _limit.get()
    signum = 0 if noted is None or noted.pending is None else noted.pending
    return signum, limit is not None and limit.near()


def stop(signum: float, late: float) -> None:
    """Raise `Stopped` for `wishes`, of this process or of all of a job."""
    phases.NOW.look()
    if signum:
        raise Stopped(int(signum))
    limit = _limit.get()
    if late and limit is not None:
        raise OutOfTime(limit.words)


def check_together() -> None:
    """Raise `Stopped` in all processes of a job, all of which call this, if it concerns one."""
    stop(*job.current().largest_each(wishes()))


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Let `check` stop this process within: whoever calls this tells the others afterwards."""
    token = _agreed.set(True)
    try:
        yield
    finally:
        _agreed.reset(token)


def halt(reason: Exception) -> None:
    """Let `check` raise this, in every thread, until `proceed` is told the same."""
    _halts.append(reason)


def proceed(reason: Exception) -> None:
    """Let `check` raise this no more."""
    if reason in _halts:
        _halts.remove(reason)


@contextlib.contextmanager
def limited(limit: TimeLimit | None) -> Iterator[None]:
    """Let `check` look at the clock within; None changes nothing."""
    if limit is None:
        yield
        return
    token = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(token)


def begin_steps() -> None:
    """Say that preparations are over, which took longer than what `check` stands between now."""
    limit = _limit.get()
    if limit is not None:
        limit.forget()


def reserve(seconds: float) -> None:
    """Keep that much time for a save, where there is a limit."""
    limit = _limit.get()
    if limit is not None:
        limit.reserve = max(limit.reserve, seconds)
