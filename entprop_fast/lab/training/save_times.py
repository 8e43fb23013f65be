"""Say when to save within an epoch."""

from __future__ import annotations

import time

from entprop_fast.lab.training.durations import Interval, interval_of


class SaveTimes:
    """Count the steps or the time between two saves.

    Args:
        save_every: ``500steps``, ``10min``; None: never within an epoch.
    """

    def __init__(self, save_every: str | None) -> None:
        self._interval = Interval() if save_every is None else interval_of(save_every)
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Return whether to save when `step` steps of the run are done."""
        if self._interval.steps is not None:
            return step % self._interval.steps == 0
        if self._interval.seconds is None:
            return False
        now = time.monotonic()
        if now - self._last < self._interval.seconds:
            return False
        self._last = now
        return True
