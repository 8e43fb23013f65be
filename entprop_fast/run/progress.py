"""A run on the terminal: one bar where there is one, plain lines in a log."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from entprop_fast.text import plain


class Reporter:
    """Tells a console what a run is doing; `Reporter.quiet()` tells nobody."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._epochs = 0

    @classmethod
    def quiet(cls) -> Reporter:
        """For callers who read the summary instead."""
        return cls(Console(quiet=True))

    def say(self, text: str) -> None:
        """One line or several, above the bar."""
        lines = "\n".join(plain(line) for line in text.split("\n"))
        self.console.print(lines, markup=False, emoji=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def training(self, *, epochs: int, steps: int, done: int) -> Iterator[None]:
        """Show the bar within, `done` of `steps` steps being behind; none in a log."""
        self._epochs = epochs
        if not self.console.is_terminal:
            yield
            return
        bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("{task.fields[speed]:.0f} images/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task = bar.add_task(
            "", total=steps, completed=done, epoch=f"0/{epochs}", loss=math.nan, speed=0.0
        )
        with bar:
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def steps_done(self, done: int, *, epoch: int, loss: float, images_per_second: float) -> None:
        """Move the bar to `done` steps; `epoch` counts from 1."""
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=done,
                epoch=f"{epoch}/{self._epochs}",
                loss=loss,
                speed=images_per_second,
            )

    def epoch_done(self, row: dict[str, Any], *, seconds_left: float) -> None:
        """An epoch's line in a log; the bar says it on a terminal."""
        if self._bar is None:
            self.say(
                f"epoch {row['epoch']}/{self._epochs}  loss {row['loss']:.3f}  "
                f"aux loss {row['aux_loss']:.3f}  SA {row['sa']:.1f}  gap {row['gap']:.1f}  "
                f"{row['images_per_second']:.0f} images/s  {seconds_left:.0f} s left"
            )
