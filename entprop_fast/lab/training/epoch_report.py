"""Report epochs as they end, and the time that is left."""

from __future__ import annotations

import time

from entprop_fast.lab.report.progress import Reporter, time_left
from entprop_fast.lab.training import diagnostics
from entprop_fast.lab.training.run_folder import Row


class EpochReport:
    """Tell a reporter of each epoch.

    Args:
        reporter: is told.
        epochs: of the run.
    """

    def __init__(self, reporter: Reporter, epochs: int) -> None:
        self._reporter, self._epochs = reporter, epochs
        self._told_capture = False
        self.begin(0)

    def begin(self, done: int) -> None:
        """Let the time that is left be reckoned from now on, `done` epochs being behind."""
        self._began, self._before = time.monotonic(), done

    def ended(self, row: Row, done: int, replays: int) -> None:
        """Report an epoch, after which `done` are behind and so many steps were replayed."""
        now, total = done - self._before, self._epochs - self._before
        left = time_left(time.monotonic() - self._began, now, total)
        self._reporter.epoch_done(row, seconds_left=left)
        for name in row["signatures"]:
            self._reporter.say(diagnostics.describe(name, row))
        if replays and not self._told_capture:
            self._told_capture = True
            self._reporter.say(f"{replays} steps so far were replays of a CUDA graph")
