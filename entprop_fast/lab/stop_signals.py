"""The signals that end a command: noted here, answered by `entprop_fast.lab.stopping.check`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from entprop_fast.lab.stopping import watched

# Ctrl-C; kill, timeout and schedulers; a closed terminal; Slurm's warning before a time limit.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_AGAIN = b"\nstopping; a second Ctrl-C ends at once and saves nothing\n"


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
