"""Torchrun starts a job again, of which a process was killed: the run is an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

from tests.children import running
from tests.lab.conftest import assert_same
from tests.lab.job.jobs import PATIENCE, TRAIN, Jobs, start

__all__ = ["start"]

OPTIONS = ("--epochs", "12", "--save-every", "1steps")  # long enough to be killed twice


def process_of(rank: int, attempt: int, agent: int) -> int | None:
    """The number of the process that torchrun started for a rank, in this attempt."""
    wanted = {b"RANK=%d" % rank, b"TORCHELASTIC_RESTART_COUNT=%d" % attempt}
    for task in Path(f"/proc/{agent}/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted <= set(environment):
                return int(child)
    return None


def until(agent: Popen[str], happened: Callable[[], bool]) -> None:
    """Wait until something has happened, while torchrun runs."""
    limit = time.monotonic() + PATIENCE
    while not happened():
        assert agent.poll() is None and time.monotonic() < limit
        time.sleep(0.01)


def saved(checkpoint: Path) -> int:
    """When a checkpoint was written; 0: there is none, at this moment."""
    with contextlib.suppress(FileNotFoundError):
        return checkpoint.stat().st_mtime_ns
    return 0


def kill_once_saved(agent: Popen[str], rank: int, attempt: int, newest: Path) -> None:
    """Kill a rank in the midst of the steps that this attempt takes."""
    until(agent, lambda: process_of(rank, attempt, agent.pid) is not None)
    before = saved(newest)
    until(agent, lambda: saved(newest) != before)
    process = process_of(rank, attempt, agent.pid)
    assert process is not None
    os.kill(process, signal.SIGKILL)


def test_a_job_whose_processes_are_killed_ends_by_itself(start: Jobs, tmp_path: Path) -> None:
    """Through the real door (torchrun, its agent, its store, the module): rank 1, then rank 0."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    newest = out / "checkpoint.pt"
    alone = start([*OPTIONS, "--out", str(whole)])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    # Not what --standalone asks for, a port that this machine's name leads to.
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--max-restarts", "2"]
    words = ["-m", "entprop_fast.train", *TRAIN, *OPTIONS, "--out", str(out)]
    with running([*torchrun, *meeting, *words], OMP_NUM_THREADS="1") as agent:
        for attempt, rank in enumerate((1, 0)):
            kill_once_saved(agent, rank, attempt, newest)
        said, error = agent.communicate(timeout=PATIENCE)
    assert agent.returncode == 0, error
    assert "torchrun started the job again" in said
    start.ended(alone)
    assert_same(out, whole)
