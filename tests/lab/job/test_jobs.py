"""The train command as a job of two processes: one run, one output, one ending."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.lab.job.jobs import Jobs, start

__all__ = ["start"]


def test_a_run_of_two_processes_is_one(start: Jobs, tmp_path: Path) -> None:
    """With exact ranks its numbers are one process's, up to float32; the last batch has 16 rows."""
    alone, out = tmp_path / "alone", tmp_path / "run"
    assert start(["--epochs", "2", "--out", str(alone)], world=1)[0].ended()[0] == 0
    words = ["--epochs", "2", "--ranks", "exact", "--out", str(out)]
    first, other = (one.ended() for one in start(words))
    assert first[0] == 0 and "epoch 2/2" in first[1], first
    assert other == (0, "", "")
    assert not (out / ".lock").exists()
    wanted, found = (_rows(one) for one in (alone, out))
    assert [row["step"] for row in found] == [4, 8]
    for row, same in zip(found, wanted, strict=True):
        for name in ("loss", "aux_loss", "batch_accuracy", "train_accuracy", "sa", "lr"):
            assert row[name] == pytest.approx(same[name], rel=1e-3), name
    costs = [json.loads((one / "summary.json").read_text())["cost"] for one in (alone, out)]
    assert costs[0] == costs[1]
    (code, _, said), other = (one.ended() for one in start(words))
    assert (code, other[0::2]) == (2, (2, "")) and "--resume" in said and said.count("\n") == 1


def _rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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
