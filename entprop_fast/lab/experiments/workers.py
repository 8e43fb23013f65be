"""Runs side by side, each in a spawned process; a stop reaches all of them and loses nothing."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from entprop_fast.devices import usable_cores
from entprop_fast.lab import stopping
from entprop_fast.lab.data.readers import workers_of_each
from entprop_fast.lab.experiments.watching import State, Teller
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.stopping import SIGNALS, StopSignals
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.engine import train
from entprop_fast.lab.training.errors import (
    RunFailed,
    Stopped,
    UsageError,
    machine_failed,
    one_line,
)

_CONTEXT = get_context("spawn")
_ASK = 0.5  # seconds after which it is asked whether to stop
_PARENTS = {one for one in SIGNALS if one != signal.SIGTERM}


@dataclass(frozen=True)
class Outcome:
    """What a run came to: its summary, or why there is none.

    After a `fault`, ours or the device's, the process is not used for another run.
    """

    summary: dict[str, Any] | None = None
    error: str | None = None
    fault: bool = False


def places(device: str, jobs: int | None, threads: int) -> list[str]:
    """The device of each process: one for each GPU, or for each `threads` cores.

    Args:
        device: as in the settings; ``auto`` and ``cuda`` stand for every GPU where there is one.
        jobs: processes, None for as many as the machine has room for.
        threads: of a process on the CPU.

    Raises:
        ValueError: `jobs` is below 1.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {jobs}")
    found = [device]
    if device in ("auto", "cuda"):
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        found = [f"cuda:{index}" for index in range(gpus)] or [
            "cpu" if device == "auto" else device
        ]
    if found == ["cpu"]:
        found *= max(1, usable_cores() // threads)
    return found if jobs is None else [found[index % len(found)] for index in range(jobs)]


def run_all(
    jobs: Sequence[Config], devices: Sequence[str], hear: Callable[[int, Outcome | State], None]
) -> None:
    """Do every run, one at a time on each of `devices`; each continues what its folder holds.

    `hear` is told each one's index with how far it is, from its begin on, and at last its outcome.
    An exception, `Stopped` by a signal above all, stops every process first: each saves its
    checkpoint.

    Raises:
        Stopped: a signal came.
    """
    left = iter(enumerate(jobs))
    workers: list[_Worker] = []
    try:
        side_by_side = devices[: len(jobs)]
        for device in side_by_side:
            workers.append(_Worker(device, readers=workers_of_each(len(side_by_side))))
            workers[-1].take(left, hear)
        while busy := [worker for worker in workers if worker.index is not None]:
            # A process that died makes its end of the pipe readable, too.
            found = connection.wait([worker.pipe for worker in busy], timeout=_ASK)
            stopping.check()
            for ready in found:
                worker = next(one for one in busy if one.pipe is ready)
                index, news = worker.news()
                hear(index, news)
                if isinstance(news, Outcome):
                    worker.take(left, hear)
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.process.join()


class _Worker:
    """A process that does one job after the other on one device.

    Args:
        device: its.
        readers: processes that read a run's images, where the job does not say.
    """

    def __init__(self, device: str, *, readers: int) -> None:
        self.device, self.readers = device, readers
        self.index: int | None = None  # of the job at hand
        self._start()

    def take(
        self, jobs: Iterator[tuple[int, Config]], hear: Callable[[int, Outcome | State], None]
    ) -> None:
        """Begin the next job, if there is one."""
        following = next(jobs, None)
        self.index = None
        if following is None:
            return
        if not self.process.is_alive():
            self._start()
        self.index, config = following
        hear(self.index, State("started", 0, None))
        workers = self.readers if config.workers is None else config.workers
        self.pipe.send(replace(config, device=self.device, workers=workers))

    def news(self) -> tuple[int, Outcome | State]:
        """Receive what the job at hand came to, or how far it is; the pipe has announced it."""
        assert self.index is not None
        news: Outcome | State
        try:
            news = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            news = Outcome(error=f"its process ended with exit code {code}; run again to resume")
        if isinstance(news, Outcome) and news.fault:
            self.process.join()
        return self.index, news

    def stop(self) -> None:
        """Ask the process to end: at once when idle, else when its checkpoint is saved."""
        self.pipe.close()
        if self.index is not None and self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGTERM)

    def _start(self) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self.process: SpawnProcess = _CONTEXT.Process(
            target=_work, args=(theirs,), name=f"run on {self.device}"
        )  # no daemon: those may not start the processes that read image files
        # Ctrl-C in a terminal reaches a whole process group; only the parent is to hear it. So
        # with a terminal that is closed, and a signal that Slurm sends to a whole job.
        resource_tracker.ensure_running()  # its start unblocks SIGINT
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS)
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()


def _work(pipe: Connection) -> None:
    """Do what comes through the pipe; the parent's signals stay blocked, SIGTERM stops a run."""
    follow_parent()
    try:
        with StopSignals().installed():
            while True:
                config: Config = pipe.recv()
                outcome = _outcome(config, Teller(pipe))
                pipe.send(outcome)
                if outcome.fault:
                    return
    except (EOFError, ConnectionError, Stopped):
        return


def _outcome(config: Config, reporter: Reporter | None = None) -> Outcome:
    try:
        summary = train(config, resume=True, reporter=reporter)
    except (UsageError, RunFailed) as error:
        return Outcome(error=one_line(error))
    except Exception as error:  # the others go on, and the traceback is shown
        if (reason := machine_failed(error)) is not None:
            return Outcome(error=reason)
        traceback.print_exc()
        return Outcome(error=f"{type(error).__name__}: {one_line(error)}", fault=True)
    return Outcome(summary=asdict(summary))


def follow_parent() -> None:
    """From now on, stop when the parent was killed: a new one may do this process's work again."""

    def follow() -> None:
        parent = parent_process()
        assert parent is not None
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()
