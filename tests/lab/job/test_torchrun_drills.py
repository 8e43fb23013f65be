"""Torchrun starts a job again, whose rank 0 was killed: the run ends as an undisturbed one."""

from __future__ import annotations

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

OPTIONS = ("--epochs", "6", "--save-every", "1steps")


def process_of(rank: int, agent: int) -> int | None:
    """The number of the process that torchrun started for a rank."""
    for task in Path(f"/proc/{agent}/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"RANK=%d" % rank in environment:
                return int(child)
    return None


def until(agent: Popen[str], happened: Callable[[], bool]) -> None:
    """Wait until something has happened, while torchrun runs."""
    limit = time.monotonic() + PATIENCE
    while not happened():
        assert agent.poll() is None and time.monotonic() < limit
        time.sleep(0.01)


def test_a_job_whose_process_is_killed_ends_by_itself(start: Jobs, tmp_path: Path) -> None:
    """Through the real door: torchrun, its agent, its store, and the module."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    alone = start([*OPTIONS, "--out", str(whole)])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    # Not what --standalone asks for, a port that this machine's name leads to.
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--max-restarts", "1"]
    words = ["-m", "entprop_fast.train", *TRAIN, *OPTIONS, "--out", str(out)]
    with running([*torchrun, *meeting, *words], OMP_NUM_THREADS="1") as agent:
        until(agent, (out / "checkpoint.pt").exists)
        killed = process_of(0, agent.pid)  # which holds the folder, and judges the others
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        said, error = agent.communicate(timeout=2 * PATIENCE)
    assert agent.returncode == 0, error
    assert "torchrun started the job again" in said
    start.ended(alone)
    assert_same(out, whole)
