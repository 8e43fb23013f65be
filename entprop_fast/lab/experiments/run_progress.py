"""Show the progress of runs: each tells how far it is, wherever it is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from rich.console import Console

from entprop_fast.lab.report.progress import EVERY, FIRST, Reporter, Task

_EVERY = 0.5  # seconds between two messages of a run


class State(NamedTuple):
    """Say how far a run is."""

    what: str  # it is doing
    done: int
    total: int | None


class StateReporter(Reporter):
    """Report a run's progress as `State`, and say nothing.

    Args:
        send: takes each state, to another process for one.
    """

    def __init__(self, send: Callable[[State], None]) -> None:
        super().__init__(Console(quiet=True))
        self._send, self._sent = send, -_EVERY
        self._outer: Task | None = None

    @contextlib.contextmanager
    def task(
        self, what: str, total: int | None = None, *, done: int = 0, first: float = FIRST
    ) -> Iterator[Task]:
        """Send what begins at once, unless it is a part of another; see `Reporter.task`."""
        with super().task(what, total, done=done, first=first) as task:
            before = self._outer
            if before is not None and before.total is not None:
                yield task
                return
            self._outer = task
            self._tell(State(what, done, total))
            try:
                yield task
            finally:
                self._outer = before

    def moved(self, task: Task, text: str) -> None:
        """Send how far the task is; see `Reporter.moved`."""
        if task is self._outer and time.monotonic() - self._sent >= _EVERY:
            self._tell(State(text, task.done, task.total))

    def _tell(self, state: State) -> None:
        self._sent = time.monotonic()
        # A parent that has closed the pipe is stopping; the run's next signal says the rest.
        with contextlib.suppress(OSError):
            self._send(state)


class ProgressRows:
    """Show a row for each run that is going on.

    Args:
        reporter: shows them.
        names: of the runs.
    """

    def __init__(self, reporter: Reporter, names: Sequence[str]) -> None:
        self.reporter, self.names = reporter, names
        self._rows: dict[int, tuple[contextlib.ExitStack, Task]] = {}

    def __enter__(self) -> ProgressRows:
        return self

    def __exit__(self, *error: Any) -> None:
        for index in list(self._rows):
            self.end(index)

    def show(self, index: int, state: State) -> None:
        """Begin the run's row, or move it."""
        name = self.names[index]
        if index not in self._rows:
            self.reporter.say(f"started {name}")
            stack = contextlib.ExitStack()
            self._rows[index] = stack, stack.enter_context(self.reporter.task(name, first=EVERY))
            return
        task = self._rows[index][1]
        if state.total != task.total:
            task.begin(state.total, state.done)
        task.reach(state.done, what=f"{name}  {state.what}")

    def end(self, index: int) -> None:
        """Remove the run's row, if it has one."""
        if index in self._rows:
            self._rows.pop(index)[0].close()
