"""Be one of the processes that do a command's work together, and tell the others things.

A command that nobody started with torchrun is a job of one process, which tells itself. All that
is told goes over the host (gloo): nothing here waits for a device.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from entprop_fast.lab.job.phases import WAITING, enter
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
        local_world: processes of the job on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    @property
    def place(self) -> dict[str, int]:
        """The options of a loader that deals batches out: ``rank`` and ``world``."""
        return {"rank": self.rank, "world": self.world}

    def gather(self, value: T) -> list[T]:
        """Return everybody's value, by rank, in every process."""
        if self.world == 1:
            return [value]
        said: list[Any] = [None] * self.world
        with _waiting():
            dist.all_gather_object(said, value, group=host_group())
        return said

    def from_main(self, value: T) -> T:
        """Return the value of rank 0 in every process."""
        if self.world == 1:
            return value
        said: list[Any] = [value if self.is_main else None]
        with _waiting():
            dist.broadcast_object_list(said, src=0, group=host_group())
        told: T = said[0]
        return told

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Add numbers up over the processes, each on its own, in float64."""
        return self._reduced(numbers, dist.ReduceOp.SUM)

    def largest(self, number: float) -> float:
        """Return the largest of everybody's number."""
        return self._reduced([number], dist.ReduceOp.MAX)[0]

    def largest_each(self, numbers: Sequence[float]) -> list[float]:
        """Return the largest of everybody's numbers, each on its own."""
        return self._reduced(numbers, dist.ReduceOp.MAX)

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
        with _waiting():
            dist.all_reduce(board, operation, group=host_group())
        told: list[float] = board.tolist()
        return told


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    before = enter(WAITING)
    try:
        yield
    finally:
        enter(before)


_job = Job()  # of the process, whichever thread asks


def current() -> Job:
    """Return the job that this process is part of; one of its own where there is none."""
    return _job


@contextlib.contextmanager
def joined(job: Job) -> Iterator[Job]:
    """Be part of a job within, whose process group is initialised."""
    global _job
    before, _job = _job, job
    try:
        yield job
    finally:
        _job = before


def of_group() -> Job:
    """Return the job of the process group that somebody initialised; one of its own without.

    What is said of the machine comes from torchrun's variables where it set them.
    """
    if _job.world > 1 or not (dist.is_available() and dist.is_initialized()):
        return _job
    told = (os.environ.get(name, "") for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    local = [int(one) if one.isdecimal() else None for one in told]
    rank, world = dist.get_rank(), dist.get_world_size()
    return Job(rank, world, rank if local[0] is None else local[0], local[1] or world)
