"""Note what this process is doing, cheaply, so that a watchdog can say where it stands still."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

WAITING = "waiting for the other processes"


class Phase:
    """Hold what the process is doing, and since when.

    Attributes:
        name: of what is being done.
        began: when it was entered, or last moved on.
        looked: when the process last asked whether to stop; None: not yet.
        longest: seconds between two such looks.
        limit: seconds that it may stand still; 0: any.
    """

    def __init__(self) -> None:
        self.name, self.began = "starting", time.monotonic()
        self.looked: float | None = None
        self.longest = self.limit = 0.0

    def look(self) -> None:
        """Note that the process asks whether it is to stop."""
        now = time.monotonic()
        if self.looked is not None:
            self.longest = max(self.longest, now - self.looked)
        self.looked = self.began = now


NOW = Phase()


def enter(name: str) -> str:
    """Say what begins now, or goes on after a part of it; return what was done before."""
    before, NOW.name, NOW.began = NOW.name, name, time.monotonic()
    return before


def expect_progress(limit: float) -> None:
    """Let the watchdog end the job when this process stands still for longer, in seconds."""
    NOW.look()
    NOW.limit = limit


def moved() -> None:
    """Note that what is being done goes on."""
    NOW.began = time.monotonic()


def over(
    batches: Iterable[T], reading: str = "reading a batch", using: str = "a step"
) -> Iterator[T]:
    """Pass batches on, and note whether one is being read or used."""
    source = iter(batches)
    while True:
        enter(reading)
        batch = next(source, None)
        enter(using)
        if batch is None:
            return
        yield batch
