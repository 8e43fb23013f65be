"""Do runs side by side, in spawned processes or here; a stop reaches all, and loses nothing."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import torch

from entprop_fast.devices import usable_cores
from entprop_fast.lab import stopping
from entprop_fast.lab.data.readers import workers_of_each
from entprop_fast.lab.experiments.one_run import (
    Mark,
    Outcome,
    Run,
    outcome_of,
    record_failure,
)
from entprop_fast.lab.experiments.run_progress import State, StateReporter
from entprop_fast.lab.experiments.shared_runs import SharedRuns
from entprop_fast.lab.stopping import SIGNALS, StopSignals
from entprop_fast.lab.training.errors import Stopped

_CONTEXT = get_context("spawn")
_ASK = 0.5  # seconds after which it is asked whether to stop
_STARTED = State("started", 0, None)
_PARENTS = {one for one in SIGNALS if one != signal.SIGTERM}


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


def do_runs(runs: SharedRuns, devices: Sequence[str], hear: Hear) -> None:
    """Do every run, one at a time on each of `devices`, or all in this process if there is none.

    `hear` is told each one's index with how far it is, from its begin on, and at last its outcome.
    An exception, `Stopped` by a signal above all, stops every process first: each saves its
    checkpoint.

    Raises:
        Stopped: a signal came.
    """
    if devices:
        _do_in_processes(runs, devices, hear)
        return
    while len(runs):
        if (given := runs.take()) is None:
            runs.wait()
            continue
        index, mark = given
        hear(index, _STARTED)
        reporter = StateReporter(functools.partial(hear, index))
        run = _with_readers(runs.runs[index], workers_of_each(1))
        _tell(runs, index, outcome_of(run, mark, reporter), hear)


def _do_in_processes(runs: SharedRuns, devices: Sequence[str], hear: Hear) -> None:
    side_by_side = devices[: len(runs)]
    readers = workers_of_each(len(side_by_side))
    workers = [_Worker(device, readers=readers) for device in side_by_side]
    try:
        while True:
            for worker in workers:
                if worker.index is None and (given := runs.take()) is not None:
                    worker.begin(runs.runs[given[0]], *given, hear)
            busy = [worker for worker in workers if worker.index is not None]
            if not busy:
                if not len(runs):
                    return
                runs.wait()
                continue
            # A process that died makes its end of the pipe readable, too.
            found = connection.wait([worker.pipe for worker in busy], timeout=_ASK)
            stopping.check()
            for ready in found:
                worker = next(one for one in busy if one.pipe is ready)
                index, news = worker.news()
                if isinstance(news, Outcome):
                    worker.index = None
                    _tell(runs, index, news, hear)
                else:
                    hear(index, news)
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.process.join()


def _tell(runs: SharedRuns, index: int, outcome: Outcome, hear: Hear) -> None:
    """Pass on what a run came to; one that is another machine's comes up again."""
    if outcome.held is not None:
        runs.put_back(index, outcome.held)
    hear(index, outcome)


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

    def begin(self, run: Run, index: int, mark: Mark, hear: Hear) -> None:
        """Begin a run."""
        if not self.process.is_alive():
            self._start()
        self.index, self.folder = index, run.folder
        hear(index, _STARTED)
        run = replace(run, config=replace(run.config, device=self.device))
        self.pipe.send((_with_readers(run, self.readers), mark))

    def news(self) -> tuple[int, Outcome | State]:
        """Receive what the run at hand came to, or how far it is; the pipe has announced it."""
        assert self.index is not None
        news: Outcome | State
        try:
            news = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            error = f"its process ended with exit code {code}; run again to resume"
            record_failure(self.folder, error)
            news = Outcome(error=error)
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
                run, mark = pipe.recv()
                outcome = outcome_of(run, mark, StateReporter(pipe.send))
                pipe.send(outcome)
                if outcome.fault:
                    return
    except (EOFError, ConnectionError, Stopped):
        return


def _follow_parent() -> None:
    """Stop, from now on, when the parent was killed: a new one may do this process's work again."""

    def follow() -> None:
        parent = parent_process()
        assert parent is not None
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()
