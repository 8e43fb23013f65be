"""Save a run: when it is due, in the background, and so that nothing of it is lost.

A save copies the state to memory of its own, which is quick; a thread then serialises it, computes
its checksum and writes it while training goes on. One write is underway at most: the next save
waits for it. `torch.distributed.checkpoint.async_save` does likewise for its own format, a folder
of shards without checksums; a run's checkpoint is one file that `torch.load` reads.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from entprop_fast.lab import checkpoint, in_step, job, stopping
from entprop_fast.lab.training.best_network import BestNetwork
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.deploy import NetworkSpec
from entprop_fast.lab.training.errors import RunFailed, one_line
from entprop_fast.lab.training.run_folder import BEST, RunFolder
from entprop_fast.lab.training.save_times import SaveTimes

State = dict[str, Any]


class Saver:
    """Keep a run's checkpoints in its folder, on rank 0; the other ranks call the same.

    A save that is `needed`, of an epoch or a stop, ends the run where it fails: at the next look,
    with the checkpoint before it in place. Of another one a warning is given, once until one
    succeeds.

    Args:
        config: settings of the run.
        spec: says how its network is built again.
    """

    def __init__(self, config: Config, spec: NetworkSpec) -> None:
        self._about = {"config": asdict(config), "network": asdict(spec)}
        self._times, self._keep = SaveTimes(config.save_every), config.keep_checkpoints
        self._path = Path()
        self._writer: ThreadPoolExecutor | None = None
        self._written: Future[float] | None = None  # seconds that it took
        self._needed, self._first = False, True
        self._copying, self._longest = 0.0, 0.0  # seconds; the longest write
        self._warned = False

    @contextlib.contextmanager
    def open(self, folder: RunFolder) -> Iterator[None]:
        """Save to `folder` within; wait for what is being written at the end, whatever ends it.

        Raises:
            RunFailed: a needed checkpoint could not be written.
        """
        self._path = folder.path
        with ThreadPoolExecutor(1, "checkpoint") as self._writer:
            try:
                yield
            except BaseException:
                if (reason := self._result()) is not None:
                    self._warn(reason, "the checkpoint before it stays")
                raise
            self.wait()

    def due(self, step: int) -> bool:
        """Return whether to save within an epoch, when `step` steps of the run are done.

        Raises:
            RunFailed: a needed checkpoint could not be written.
        """
        if self._written is not None and self._written.done() and job.current().world == 1:
            self.wait()
        return self._times.due(step)

    def save(
        self,
        state: Callable[[], State],
        *,
        needed: bool = True,
        at_once: bool = False,
        best: BestNetwork | None = None,
    ) -> None:
        """Begin to save what `state` returns, on all ranks together.

        Args:
            state: is called once the write before is done.
            needed: see the class.
            at_once: return when it is written. A session's first save always is: it shows whether
                the disk takes checkpoints, and how long that takes.
            best: is written, too, where it has a network.

        Raises:
            RunFailed: a needed checkpoint could not be written.
        """
        self.wait()
        began = time.monotonic()
        before = job.enter("saving a checkpoint")
        made, self._needed = state(), needed
        if job.current().is_main:
            assert self._writer is not None
            best_network = None if best is None else best.state_dict()  # replaced, never changed
            copied = checkpoint.snapshot(made)
            self._written = self._writer.submit(self._write, copied, best_network)
        self._copying = time.monotonic() - began
        self._times.saved()
        if at_once or self._first:
            self._first = False
            self.wait()
        job.enter(before)

    def wait(self) -> None:
        """Wait until nothing is being written, on all ranks together.

        Raises:
            RunFailed: a needed checkpoint could not be written.
        """
        reason = job.current().from_main(self._result())
        if reason is not None and self._needed:
            raise RunFailed(reason)
        if reason is not None:
            self._warn(reason, "the checkpoint before it stays, and training goes on")

    def keep_best(self, best: BestNetwork | None) -> None:
        """Write the best network, where there is one."""
        if best is not None and best.epoch and job.current().is_main:
            self._write_best(best.state_dict())

    def newest(self, say: Callable[[str], None]) -> State | None:
        """Return the newest whole checkpoint, once nothing is being written; see `wait`.

        Raises:
            CorruptCheckpoint: there are checkpoints, and none of them is whole.
        """
        self.wait()
        state = None
        with in_step.together():
            if job.current().is_main:
                state = checkpoint.read_newest(self._path, say)
        return job.current().from_main(state)

    def _write(self, state: State, best: State | None) -> float:
        """Write a checkpoint, in the thread, and return how long it took."""
        began = time.monotonic()
        checkpoint.save(self._path, state, self._keep)
        if best is not None:
            self._write_best(best)
        return time.monotonic() - began

    def _write_best(self, best: State) -> None:
        checkpoint.write(self._path / BEST, self._about | best)

    def _result(self) -> str | None:
        """Wait for the write that is underway, and return why it failed, if it did."""
        if self._written is None:
            return None
        written, self._written = self._written, None
        try:
            self._longest = max(self._longest, written.result())
        except (OSError, MemoryError) as error:
            named = isinstance(error, OSError) and error.filename is not None
            file = "" if named else f"{self._path / checkpoint.CURRENT}: "
            return f"{file}{one_line(error)}"
        self._warned = False
        # Twice a save's usual time, after a write that may be underway.
        stopping.reserve(2 * (self._copying + self._longest) + self._longest)
        return None

    def _warn(self, reason: str, kept: str) -> None:
        if not self._warned and job.current().is_main:
            self._warned = True
            warnings.warn(f"no checkpoint was saved: {reason}; {kept}", stacklevel=3)
