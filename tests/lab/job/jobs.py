"""Commands as jobs of several processes, with torchrun's variables, and faults in some of them."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.training import finish
from tests.children import end_with_parent
from tests.processes import PRELOADED

TRAIN = (
    *("--train-size", "76", "--batch-size", "20", "--no-drop-last", "--device", "cpu"),
    *("--arch", "wrn10_0.5", "--corruptions", "none"),
)
PATIENCE = 120.0  # seconds, on a machine that does much else
Fault = Callable[[int], object]  # put into the process of this rank; a function of a module


@dataclass
class Member:
    """One process of a job, with its output in files.

    Attributes:
        seconds: when it ended, on the monotonic clock; see `Jobs.ended`.
    """

    rank: int
    folder: Path
    process: ForkServerProcess
    seconds: float = 0.0

    @property
    def said(self) -> str:
        """What it printed."""
        return (self.folder / f"{self.rank}.out").read_text()

    @property
    def error(self) -> str:
        """What it printed on stderr."""
        return (self.folder / f"{self.rank}.err").read_text()

    @property
    def reasons(self) -> list[str]:
        """The lines that say why it ended; torch may tell of a connection that broke, too."""
        begins = ("failed: ", "error: ", "stopped by ", "Traceback")
        return [line for line in self.error.splitlines() if line.startswith(begins)]

    def until(self, begin: str) -> None:
        """Wait for a line that begins so."""
        self.wait(lambda: any(line.startswith(begin) for line in self.said.splitlines()))

    def wait(self, happened: Callable[[], bool]) -> None:
        """Wait until something has happened, while the process runs."""
        limit = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.is_alive() and time.monotonic() < limit, self.error
            time.sleep(0.02)

    def ended(self) -> tuple[int | None, str, str]:
        """The exit code, stdout and stderr."""
        self.process.join(PATIENCE)
        return self.process.exitcode, self.said, self.error


@dataclass
class Jobs:
    """Start jobs, each with a folder of its own for what its processes print."""

    folder: Path
    started: list[Member] = field(default_factory=list)

    def __call__(
        self,
        words: Sequence[str],
        fault: Fault | None = None,
        *,
        world: int = 2,
        door: str = "train",
    ) -> list[Member]:
        """Start a command in as many processes as torchrun would, and return them by rank."""
        processes = get_context("forkserver")
        processes.set_forkserver_preload(PRELOADED)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        alike = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        folder = self.folder / f"job {len(self.started)}"
        folder.mkdir()
        made = []
        for rank in range(world):
            own = alike | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            for name in ("out", "err"):
                (folder / f"{rank}.{name}").touch()
            arguments = [*(TRAIN if door == "train" else ()), *words]
            process = processes.Process(
                target=_command, args=(door, arguments, own, str(folder), fault)
            )
            process.start()
            made.append(Member(rank, folder, process))
        self.started.extend(made)
        return made

    def ended(self, *jobs: Sequence[Member]) -> None:
        """Wait until all these have ended, and note when each did."""
        left = {member.process.sentinel: member for job in jobs for member in job}
        limit = time.monotonic() + PATIENCE
        while left:
            ready = connection.wait(list(left), limit - time.monotonic())
            assert ready, [(member.rank, member.said, member.error) for member in left.values()]
            for one in ready:
                assert isinstance(one, int)
                left.pop(one).seconds = time.monotonic()
        for job in jobs:
            for member in job:
                member.process.join()


def _command(
    door: str, words: list[str], environment: dict[str, str], folder: str, fault: Fault | None
) -> None:
    """Be the command in this process, its output in files."""
    end_with_parent()
    os.environ |= environment
    for stream, name in ((1, "out"), (2, "err")):
        path = f"{folder}/{environment['RANK']}.{name}"
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    sys.stdout = open(1, "w", buffering=1, closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    command = importlib.import_module(f"entprop_fast.lab.cli.{door}")
    patched: Any = finish
    patched._draw = lambda *args: None  # half of a tiny run's time, for nothing that is tested here
    if fault is not None:
        fault(int(environment["RANK"]))
    sys.exit(command.main(words))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Jobs]:
    """Start jobs that end with the test."""
    yield from jobs_in(tmp_path)


def jobs_in(folder: Path) -> Iterator[Jobs]:
    """Give what starts jobs; what is left of them is killed in the end."""
    jobs = Jobs(folder)
    try:
        yield jobs
    finally:
        for one in jobs.started:
            one.process.kill()
            one.process.join()
