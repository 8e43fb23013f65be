"""Start the processes of a job: they meet, and share out the machine's cores."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from datetime import timedelta

import torch
from torch import distributed as dist
from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from entprop_fast.lab.job.environment import Place
from entprop_fast.lab.job.members import Job, joined

_MEETING = timedelta(minutes=10)  # until all are there
_EXCHANGE = timedelta(hours=2)  # of one collective: the watchdog ends what stands still before
_ONE_THREAD = "1"  # what torchrun sets OMP_NUM_THREADS to, where nobody did


@contextlib.contextmanager
def meeting(place: Place) -> Iterator[tuple[Job, Store]]:
    """Be one of a job's processes within; give the job, and a store that all can write to.

    Raises:
        ConnectionError: the processes do not meet.
    """
    os.environ |= place.variables
    try:
        group_store, board = (_store(f"{name}/") for name in ("group", "watchdog"))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=group_store,
            rank=place.rank,
            world_size=place.world,
            timeout=_EXCHANGE,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ConnectionError(
            f"rank {place.rank} on {socket.gethostname()} does not meet the other processes at "
            f"{place.address}:{place.port} (MASTER_ADDR, MASTER_PORT): {_first_line(error)}"
        ) from error
    try:
        job = _with_machine(Job(place.rank, place.world, place.local_rank))
        with joined(job):
            yield job, board
    finally:
        dist.destroy_process_group()


def _store(prefix: str) -> Store:
    """Connect to where the processes meet, by a connection of its own for each thread.

    What an earlier attempt wrote, before torchrun started the job again, is not seen.
    """
    store, _, _ = next(rendezvous("env://", timeout=_MEETING))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"attempt {attempt}/{prefix}", store)


def _with_machine(job: Job) -> Job:
    """Count the processes on this machine, and give this one its part of the cores."""
    cores = frozenset(_cores())
    machines = job.gather((socket.gethostname(), cores))
    host = socket.gethostname()
    local = [theirs for name, theirs in machines if name == host]
    sharing = sum(theirs == cores for theirs in local)  # srun may give each task its own cores
    if os.environ.get("OMP_NUM_THREADS", _ONE_THREAD) == _ONE_THREAD:
        torch.set_num_threads(max(1, len(cores) // sharing))
    return Job(job.rank, job.world, job.local_rank, len(local))


def _cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
