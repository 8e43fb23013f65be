"""Say what a command is doing: lines that stay, and on a terminal moving rows below them.

A terminal and a log get the same lines. The rows are additional: one for each thing that is being
waited for, with the time that it has taken and, where its size is known, the time that is left.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Row
from rich.text import Text

from entprop_fast.lab import job
from entprop_fast.lab.report.observer import Measured
from entprop_fast.lab.report.text import plain

EPOCH_LEGEND = (
    "loss: of the main pass; aux loss: of the last auxiliary pass, unweighted\n"
    "SA: accuracy on clean test images, in percent; gap: training accuracy minus SA"
)

ANNOUNCED = 2.0  # seconds after which a wait of unknown length gets a line
FIRST, EVERY = 5.0, 60.0  # seconds without a line after which a task says how far it is

_Batch = TypeVar("_Batch", bound="tuple[Any, ...]")


class Reporter:
    """Tell a console what a command is doing; `Reporter.quiet()` tells nobody."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.last_line = -math.inf  # when it was said
        self._rows: Progress | None = None
        self._running = 0  # tasks
        self._training: Task | None = None
        self._epochs = 0
        self._after_epoch: list[Callable[[int], None]] = []

    @classmethod
    def quiet(cls) -> Reporter:
        """Make one for callers who read the summary instead."""
        return cls(Console(quiet=True))

    def say(self, text: str) -> None:
        """Print one line or several, above the rows."""
        self.last_line = time.monotonic()
        lines = "\n".join(plain(line) for line in text.split("\n"))
        self.console.print(lines, markup=False, emoji=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def task(
        self, what: str, total: int | None = None, *, done: int = 0, first: float = FIRST
    ) -> Iterator[Task]:
        """Show a row on a terminal while it lasts, and say now and then how far it is.

        Args:
            what: is being done.
            total: its size, in any unit; None: not known.
            done: so much of it is behind.
            first: seconds without a line until its first one, on how long it will take.
        """
        rows = self._show()
        row = None
        if rows is not None:
            row = rows.add_task(plain(what), total=total, completed=done)
        self._running += 1
        before = job.enter(what)
        task = Task(self, what, total, done, rows, row, first=first)
        try:
            yield task
        finally:
            job.enter(before)
            self._running -= 1
            if rows is not None and row is not None:
                rows.remove_task(row)
            if rows is not None and not self._running:
                self._rows = None
                rows.stop()

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Say that something unmeasured has begun, and that it has ended, if it takes long."""
        started, announced = time.monotonic(), threading.Event()

        def announce() -> None:
            announced.set()
            self.say(f"{what} ...")

        timer = threading.Timer(ANNOUNCED, announce)
        timer.daemon = True
        if not self.console.quiet:
            timer.start()
        try:
            with self.task(what):
                yield
            timer.cancel()
            if announced.is_set():
                self.say(f"{what}: took {duration(time.monotonic() - started)}")
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def measuring(self) -> Iterator[Callable[[Measured], None]]:
        """Give `evaluate_model` its ``progress``: a task for each thing that it measures."""
        with self.task("evaluating"), contextlib.ExitStack() as stack:
            tasks: dict[str, tuple[Task, contextlib.ExitStack]] = {}

            def heard(news: Measured) -> None:
                if news.what not in tasks:
                    own = stack.enter_context(contextlib.ExitStack())
                    task = self.task(news.what, news.total, done=news.done)
                    tasks[news.what] = own.enter_context(task), own
                row, own = tasks[news.what]
                row.reach(news.done, detail=news.detail)
                if news.done >= news.total:
                    del tasks[news.what]
                    own.close()

            yield heard

    @contextlib.contextmanager
    def training(self, *, epochs: int, steps: int, done: int) -> Iterator[None]:
        """Show the task that `steps_done` moves, `done` of `steps` steps being behind."""
        self._epochs = epochs
        with self.task("training", steps, done=done) as task:
            self._training = task
            try:
                yield
            finally:
                self._training = None

    def steps_done(self, done: int, *, epoch: int, loss: float, images_per_second: float) -> None:
        """Move the task to `done` steps; `epoch` counts from 1."""
        if self._training is not None:
            place = f"epoch {epoch}/{self._epochs}"
            speed = f"loss {loss:.3f}  {images_per_second:.0f} images/s"
            self._training.reach(done, what=f"{place}  {speed}")

    def epoch_done(self, row: dict[str, Any], *, seconds_left: float) -> None:
        """Say the line of an epoch."""
        auxiliary = f"aux loss {row['aux_loss']:.3f}  " if row["aux_loss"] else ""
        tested = "" if math.isnan(row["sa"]) else f"SA {row['sa']:.1f}  gap {row['gap']:.1f}  "
        if (held_out := row.get("validation_hscore")) is not None:
            tested += f"held-out Hscore {held_out:.1f}  "
        self.say(
            f"epoch {row['epoch']}/{self._epochs}  loss {row['loss']:.3f}  {auxiliary}{tested}"
            f"{row['images_per_second']:.0f} images/s  {duration(seconds_left)} left"
        )
        for call in self._after_epoch:
            call(row["epoch"])

    def after_epochs(self, call: Callable[[int], None]) -> None:
        """Call with the number of every epoch, from 1, once its checkpoint is saved."""
        self._after_epoch.append(call)

    def moved(self, task: Task, text: str) -> None:
        """Say how far a task is, if nothing was said for long."""
        now = time.monotonic()
        over = task.total is not None and task.done >= task.total  # its own line follows
        if over or now - max(task.began, self.last_line) < task.patience or self.console.quiet:
            return
        task.patience = EVERY
        behind = task.done - task.done_before
        if task.total and behind > 0:
            left = time_left(now - task.began, behind, task.total - task.done_before)
            text = f"{text}  ({100 * task.done / task.total:.0f} %, about {duration(left)} left)"
        self.say(text)

    def _show(self) -> Progress | None:
        if self._rows is None and self.console.is_terminal and not self.console.quiet:
            self._rows = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=16),
                TimeElapsedColumn(),
                _Left(),
                console=self.console,
                transient=True,
            )
            self._rows.start()
        return self._rows


class Task:
    """Hold what `Reporter.task` shows; made there."""

    def __init__(
        self,
        reporter: Reporter,
        what: str,
        total: int | None,
        done: int,
        rows: Progress | None,
        row: Any,
        *,
        first: float,
    ) -> None:
        self.what, self.total, self.done = what, total, done
        self._reporter, self._rows, self._row = reporter, rows, row
        self.began, self.done_before = time.monotonic(), done
        self.patience = first  # seconds without a line

    def begin(self, total: int | None, done: int) -> None:
        """Go on with what is of another size; its time counts from now."""
        self.total, self.done = total, done
        self.began, self.done_before = time.monotonic(), done
        if self._rows is not None:
            self._rows.reset(self._row, total=total, completed=done)

    def reach(self, done: int, *, what: str | None = None, detail: str = "") -> None:
        """Note how much is done, in the total's unit; `what` is being done now, `detail` of it."""
        self.done, self.what = done, what or self.what
        job.moved()
        text = f"{self.what}: {detail}" if detail else self.what
        if self._rows is not None:
            self._rows.update(self._row, completed=done, total=self.total, description=plain(text))
        self._reporter.moved(self, text)

    def over(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """Pass the batches on, counting their rows as they are done with."""
        for batch in batches:
            yield batch
            self.reach(self.done + len(batch[-1]))


class _Left(ProgressColumn):
    """Show the time that is left of tasks whose size is known."""

    max_refresh = 0.5

    def __init__(self) -> None:
        super().__init__()
        self._time = TimeRemainingColumn()

    def render(self, task: Row) -> Text:
        """Draw one row's time."""
        return Text("") if task.total is None else Text("left ") + self._time.render(task)


def time_left(elapsed: float, done: float, total: float) -> float:
    """Return how long the rest of `total` takes, of which `done` took `elapsed` seconds."""
    return elapsed * (total - done) / done


def duration(seconds: float) -> str:
    """Return ``7 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
