"""SIGINT and SIGTERM, taken at a moment when stopping loses nothing."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from entprop_fast.run.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While `held` is active a signal is only noted in `pending`; elsewhere it raises `Stopped`."""

    def __init__(self) -> None:
        self.pending: int | None = None
        self._held = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[StopSignals]:
        """Handle the signals within; outside the main thread, where Python cannot, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {one: signal.signal(one, self._receive) for one in _SIGNALS}
        try:
            yield self
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within, a signal waits for `raise_pending`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def raise_pending(self) -> None:
        """Raise `Stopped` for a signal that came while they were held."""
        if self.pending is not None:
            raise Stopped(self.pending)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.pending = signum
        if not self._held:
            raise Stopped(signum)
