"""Torchrun starts a job again, of which a process was killed: the run is an undisturbed one."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from tests.children import running
from tests.lab.conftest import assert_same
from tests.lab.job.jobs import PATIENCE, TRAIN, Jobs, start

__all__ = ["start"]

OPTIONS = ("--epochs", "3", "--save-every", "1steps")


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


def test_a_job_whose_process_is_killed_ends_by_itself(start: Jobs, tmp_path: Path) -> None:
    """Through the real door: torchrun, its agent, its store, and the module."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    alone = start([*OPTIONS, "--out", str(whole)])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    # Not what --standalone asks for, a port that this machine's name leads to.
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--max-restarts", "1"]
    words = ["-m", "entprop_fast.train", *TRAIN, *OPTIONS, "--out", str(out)]
    with running([*torchrun, *meeting, *words], OMP_NUM_THREADS="1") as agent:
        limit = time.monotonic() + PATIENCE
        while not (out / "checkpoint.pt").exists():
            assert agent.poll() is None and time.monotonic() < limit
            time.sleep(0.02)
        killed = process_of(1, agent.pid)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        said, error = agent.communicate(timeout=PATIENCE)
    assert agent.returncode == 0, error
    assert "torchrun started the job again" in said
    start.ended(alone)
    assert_same(out, whole)
