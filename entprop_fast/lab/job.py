"""Be one of the processes that do a command's work together, and tell the others things.

A command that nobody started with torchrun is a job of one process, which tells itself. All that
is told goes over the host (gloo): nothing here waits for a device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from entprop_fast.parallel.agreement import host_group

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """Say which process this is, and speak with the others.

    Every method that tells something is called by all processes of the job, in the same order.

    Attributes:
        rank: number of this process, from 0.
        world: processes of the job.
        local_rank: number of this process on its machine, which is that of its GPU.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Return everybody's value, by rank, in every process."""
        if self.world == 1:
            return [value]
        said: list[Any] = [None] * self.world
        dist.all_gather_object(said, value, group=host_group())
        return said

    def from_main(self, value: T) -> T:
        """Return the value of rank 0 in every process."""
        if self.world == 1:
            return value
        said: list[Any] = [value if self.is_main else None]
        dist.broadcast_object_list(said, src=0, group=host_group())
        told: T = said[0]
        return told

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Add numbers up over the processes, each on its own, in float64."""
        return self._reduced(numbers, dist.ReduceOp.SUM)

    def largest(self, number: float) -> float:
        """Return the largest of everybody's number."""
        return self._reduced([number], dist.ReduceOp.MAX)[0]

    def add_up(self, counts: Tensor) -> None:
        """Add integers up over the processes, in place; a tensor of one shape on each CPU."""
        if self.world > 1:
            dist.all_reduce(counts, group=host_group())

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.largest(0)

    def share(self, things: Sequence[T]) -> Sequence[T]:
        """Return this process's part of what is dealt out one at a time."""
        return things[self.own]

    @property
    def own(self) -> slice:
        """The places of this process's part."""
        return slice(self.rank, None, self.world)

    def _reduced(self, numbers: Sequence[float], operation: Any) -> list[float]:
        if self.world == 1:
            return list(numbers)
        board = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(board, operation, group=host_group())
        told: list[float] = board.tolist()
        return told


_ALONE = Job()
_job: ContextVar[Job] = ContextVar("job", default=_ALONE)


def current() -> Job:
    """Return the job that this process is part of; one of its own where there is none."""
    return _job.get()


@contextlib.contextmanager
def joined(job: Job) -> Iterator[Job]:
    """Be part of a job within, whose process group is initialised."""
    token = _job.set(job)
    try:
        yield job
    finally:
        _job.reset(token)
