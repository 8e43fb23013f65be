"""Do runs side by side, in spawned processes or here; a stop reaches all, and loses nothing."""

from __future__ import annotations

import functools
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from entprop_fast.devices import usable_cores
from entprop_fast.lab import stopping
from entprop_fast.lab.data.readers import workers_of_each
from entprop_fast.lab.experiments.run_progress import State, StateReporter
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
_STARTED = State("started", 0, None)
_PARENTS = {one for one in SIGNALS if one != signal.SIGTERM}


Record = dict[str, Any]  # what is kept of a finished run: its summary.json, or more


def train_run(config: Config, reporter: Reporter) -> Record:
    """Train a run as the train command does, from where its folder stands; its summary."""
    return asdict(train(config, resume=True, reporter=reporter))


@dataclass(frozen=True)
class Run:
    """Hold one of many runs.

    Attributes:
        variant: settings that it shares with the runs of other seeds, by name.
        seed: of the run.
        config: all settings; it names the folder.
        work: goes on with what the folder holds, in any process, and returns the record.
    """

    variant: str
    seed: int
    config: Config
    work: Callable[[Config, Reporter], Record] = train_run

    @property
    def folder(self) -> Path:
        """Run folder."""
        return self.config.folder

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self.variant}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """Hold the record of a run, or why there is none.

    After a `fault`, ours or the device's, the process is not used for another run.
    """

    record: Record | None = None
    error: str | None = None
    fault: bool = False


def places(device: str, jobs: int | None, threads: int) -> list[str]:
    """Return the device of each process: one for each GPU, or for each `threads` cores.

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


Hear = Callable[[int, Outcome | State], None]


def do_runs(runs: Sequence[Run], devices: Sequence[str], hear: Hear) -> None:
    """Do every run, one at a time on each of `devices`, or all in this process if there is none.

    `hear` is told each one's index with how far it is, from its begin on, and at last its outcome.
    An exception, `Stopped` by a signal above all, stops every process first: each saves its
    checkpoint.

    Raises:
        Stopped: a signal came.
    """
    if not devices:
        for index, run in enumerate(runs):
            hear(index, _STARTED)
            reporter = StateReporter(functools.partial(hear, index))
            hear(index, _outcome(_with_readers(run, workers_of_each(1)), reporter))
        return
    left = iter(enumerate(runs))
    workers: list[_Worker] = []
    try:
        side_by_side = devices[: len(runs)]
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


def _with_readers(run: Run, readers: int) -> Run:
    """Give a run its share of the processes that read images, unless it says how many."""
    if run.config.workers is not None:
        return run
    return replace(run, config=replace(run.config, workers=readers))


class _Worker:
    """Do one run after the other in a process on one device.

    Args:
        device: its.
        readers: processes that read a run's images, where the run does not say.
    """

    def __init__(self, device: str, *, readers: int) -> None:
        self.device, self.readers = device, readers
        self.index: int | None = None  # of the run at hand
        self._start()

    def take(self, runs: Iterator[tuple[int, Run]], hear: Hear) -> None:
        """Begin the next run, if there is one."""
        following = next(runs, None)
        self.index = None
        if following is None:
            return
        if not self.process.is_alive():
            self._start()
        self.index, run = following
        hear(self.index, _STARTED)
        run = replace(run, config=replace(run.config, device=self.device))
        self.pipe.send(_with_readers(run, self.readers))

    def news(self) -> tuple[int, Outcome | State]:
        """Receive what the run at hand came to, or how far it is; the pipe has announced it."""
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
    _follow_parent()
    try:
        with StopSignals().installed():
            while True:
                run: Run = pipe.recv()
                outcome = _outcome(run, StateReporter(pipe.send))
                pipe.send(outcome)
                if outcome.fault:
                    return
    except (EOFError, ConnectionError, Stopped):
        return


def _outcome(run: Run, reporter: Reporter) -> Outcome:
    try:
        return Outcome(record=run.work(run.config, reporter))
    except (UsageError, RunFailed) as error:
        return Outcome(error=one_line(error))
    except Exception as error:  # the others go on, and the traceback is shown
        if (reason := machine_failed(error)) is not None:
            return Outcome(error=reason)
        traceback.print_exc()
        return Outcome(error=f"{type(error).__name__}: {one_line(error)}", fault=True)


def _follow_parent() -> None:
    """Stop, from now on, when the parent was killed: a new one may do this process's work again."""

    def follow() -> None:
        parent = parent_process()
        assert parent is not None
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()
