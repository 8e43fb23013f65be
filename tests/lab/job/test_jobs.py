"""The train command as a job of two processes: one run, one output, one ending."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.lab.job.jobs import Jobs, start

__all__ = ["start"]


def test_a_run_of_two_processes_is_one(start: Jobs, tmp_path: Path) -> None:
    """The last batch has 4 rows, and evaluation has more batches than one."""
    out = tmp_path / "run"
    first, other = (one.ended() for one in start(["--epochs", "2", "--out", str(out)]))
    assert first[0] == 0 and "epoch 2/2" in first[1], first
    assert other == (0, "", "")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and rows[1]["step"] == 8
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cost"] == pytest.approx(2 * (1 + 14 / 64))  # m = 2 of 10 rows, 1 of 2
    assert not (out / ".lock").exists()
    codes = [one.ended()[0::2] for one in start(["--epochs", "2", "--out", str(out)])]
    assert [code for code, _ in codes] == [2, 2]
    assert "--resume" in codes[0][1] and codes[0][1].count("\n") == 1 and codes[1][1] == ""


def test_a_signal_to_one_stops_both_at_the_same_step(start: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--epochs", "5000", "--out", str(out)]
    first, second = start(words)
    first.until("epoch 1/")
    assert second.process.pid is not None
    os.kill(second.process.pid, signal.SIGTERM)
    (code, _, said), other = first.ended(), second.ended()
    assert code == 143 and "SIGTERM" in said and "--resume" in said, said
    assert other[0::2] == (143, "")
    assert (out / "checkpoint.pt").is_file()


def test_a_process_that_is_killed_is_named_and_ends_the_other(start: Jobs, tmp_path: Path) -> None:
    first, second = start(["--epochs", "5000", "--out", str(tmp_path / "run")])
    first.until("epoch 1/")
    second.process.kill()
    code, _, said = first.ended()
    assert code == 1 and "rank 1 on" in said and "Traceback" not in said, said
