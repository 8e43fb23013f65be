"""The same work in two processes, or more, that know each other, over gloo."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes

WORLD = 2
# Imported once, for all processes of all modules; the first DDP would import the compiler.
PRELOADED = [
    *("entprop_fast", "torch._dynamo", "scipy.stats", "sklearn.datasets"),
    *("entprop_fast.lab.cli.train", "tests.lab.job.jobs", "tests.lab.training.faults"),
]
Work = Callable[[int], dict[str, Any]]  # of a rank: what it found, tensors and plain values


def in_two_processes(work: Work, folder: Path, world: int = WORLD) -> list[dict[str, Any]]:
    """What each rank found, rank by rank; `work` is a function of a module, or a part of one."""
    start(_grouped, work, str(folder), world, world=world)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def start(function: Callable[..., None], *args: object, world: int = WORLD) -> None:
    """Run ``function(rank, *args)`` in as many processes, which know nothing of each other."""
    get_context("forkserver").set_forkserver_preload(PRELOADED)
    context = start_processes(
        function, args, nprocs=world, join=False, daemon=True, start_method="forkserver"
    )
    try:
        while not context.join():
            pass
    finally:  # also when the test is interrupted
        for process in context.processes:
            process.kill()


def _grouped(rank: int, work: Work, folder: str, world: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    torch.save(work(rank), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@contextmanager
def group_of_one(backend: str = "gloo") -> Iterator[None]:
    """A process group that holds this process alone."""
    store = distributed.HashStore()  # type: ignore[attr-defined]  # public all the same
    distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()
