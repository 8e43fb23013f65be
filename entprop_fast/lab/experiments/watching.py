"""How far the runs of a comparison are: told by each run's process, shown by the first one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, Generic, NamedTuple, TypeVar

from rich.console import Console

from entprop_fast.lab.report.progress import EVERY, FIRST, Reporter, Task

Outcome = TypeVar("Outcome")

_EVERY = 0.5  # seconds between two messages of a process


class State(NamedTuple):
    """How far a run in another process is."""

    what: str  # it is doing
    done: int
    total: int | None


class Teller(Reporter):
    """The reporter of a run in a process of its own: sends `State` through a pipe, says nothing."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(Console(quiet=True))
        self._pipe, self._told = pipe, -_EVERY
        self._outer: Task | None = None

    @contextlib.contextmanager
    def task(
        self, what: str, total: int | None = None, *, done: int = 0, first: float = FIRST
    ) -> Iterator[Task]:
        """Tell what begins at once, unless it is a part of another; see `Reporter.task`."""
        with super().task(what, total, done=done, first=first) as task:
            before = self._outer
            if before is not None and before.total is not None:
                yield task
                return
            self._outer = task
            self._send(State(what, done, total))
            try:
                yield task
            finally:
                self._outer = before

    def moved(self, task: Task, text: str) -> None:
        """Tell the parent how far the task is; see `Reporter.moved`."""
        if task is self._outer and time.monotonic() - self._told >= _EVERY:
            self._send(State(text, task.done, task.total))

    def _send(self, state: State) -> None:
        self._told = time.monotonic()
        # A parent that has closed the pipe is stopping; the run's next signal says the rest.
        with contextlib.suppress(OSError):
            self._pipe.send(state)


class Watch(Generic[Outcome]):
    """The rows of the runs that are going on.

    Args:
        reporter: shows them.
        names: of the runs.
        done: hears what each one came to.
    """

    def __init__(
        self, reporter: Reporter, names: Sequence[str], done: Callable[[int, Outcome], None]
    ) -> None:
        self.reporter, self.names, self.done = reporter, names, done
        self._rows: dict[int, tuple[contextlib.ExitStack, Task]] = {}

    def __enter__(self) -> Watch[Outcome]:
        return self

    def __exit__(self, *error: Any) -> None:
        for index in list(self._rows):
            self._end(index)

    def __call__(self, index: int, news: Outcome | State) -> None:
        """A run tells how far it is, or what it came to."""
        if not isinstance(news, State):
            self._end(index)
            self.done(index, news)
        elif index not in self._rows:
            self._begin(index)
        else:
            task = self._rows[index][1]
            if news.total != task.total:
                task.begin(news.total, news.done)
            task.reach(news.done, what=f"{self.names[index]}  {news.what}")

    def _begin(self, index: int) -> None:
        name = self.names[index]
        self.reporter.say(f"started {name}")
        stack = contextlib.ExitStack()
        self._rows[index] = stack, stack.enter_context(self.reporter.task(name, first=EVERY))

    def _end(self, index: int) -> None:
        if index in self._rows:
            self._rows.pop(index)[0].close()
