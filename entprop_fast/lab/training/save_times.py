"""Say when to save within an epoch."""

from __future__ import annotations

import time

from entprop_fast.lab import job
from entprop_fast.lab.training.durations import Interval, interval_of


class SaveTimes:
    """Count the steps or the time between two saves.

    All ranks ask alike, and the clock of rank 0 decides. It also says at which step to ask again,
    so that not every step waits for the others.

    Args:
        save_every: ``500steps``, ``10min``; None: never within an epoch.
    """

    def __init__(self, save_every: str | None) -> None:
        self._interval = Interval() if save_every is None else interval_of(save_every)
        self._last = time.monotonic()
        self._asked: tuple[int, float] | None = None  # step and time of the first look
        self._ask_at = 0

    def saved(self) -> None:
        """Count from now."""
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Return whether to save when `step` steps of the run are done."""
        if self._interval.steps is not None:
            return step % self._interval.steps == 0
        if self._interval.seconds is None:
            return False
        now = job.current()
        if now.world > 1 and step < self._ask_at:
            return False
        left = self._interval.seconds - (time.monotonic() - self._last)
        left, self._ask_at = now.from_main((left, step + self._steps_in(left / 2, step)))
        if left > 0:
            return False
        self.saved()
        return True

    def _steps_in(self, seconds: float, step: int) -> int:
        """Return the steps in so many seconds, at the speed so far; at least 1."""
        now = time.monotonic()
        if self._asked is None or step <= self._asked[0] or now <= self._asked[1]:
            self._asked = self._asked or (step, now)
            return 1
        first, began = self._asked
        return max(1, int(seconds * (step - first) / (now - began)))
