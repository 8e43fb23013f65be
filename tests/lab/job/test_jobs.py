"""The train command as a job of two processes: one run, one output, one ending."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.cli import train
from tests.children import end_with_parent

TRAIN = (
    *("--train-size", "76", "--batch-size", "20", "--no-drop-last", "--device", "cpu"),
    *("--arch", "wrn10_0.5", "--corruptions", "none"),
)
PATIENCE = 120.0  # seconds, on a machine that does much else
Start = Callable[..., "list[Member]"]


class Member:
    """One process of a job, with its output in files."""

    def __init__(self, rank: int, folder: Path, process: BaseProcess) -> None:
        self.out, self.err = (folder / f"{rank}.{name}" for name in ("out", "err"))
        self.process = process

    def until(self, begin: str) -> None:
        """Wait for a line that begins so."""
        limit = time.monotonic() + PATIENCE
        while not any(line.startswith(begin) for line in self.out.read_text().splitlines()):
            assert self.process.is_alive() and time.monotonic() < limit, self.err.read_text()
            time.sleep(0.05)

    def ended(self) -> tuple[int | None, str, str]:
        """The exit code, stdout and stderr."""
        self.process.join(PATIENCE)
        return self.process.exitcode, self.out.read_text(), self.err.read_text()


def trains(words: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """Be the command in this process, its output in files."""
    end_with_parent()
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY), stream)
    sys.stdout = open(1, "w", buffering=1, closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    os.environ |= environment
    sys.exit(train.main(words))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start two processes as torchrun would, with its variables."""
    processes = get_context("forkserver")
    processes.set_forkserver_preload(
        ["entprop_fast.lab.cli.train", "torch._dynamo", "sklearn.datasets"]
    )
    started: list[Member] = []

    def start(words: Sequence[str], world: int = 2) -> list[Member]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        alike = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        made = []
        for rank in range(world):
            files = [tmp_path / f"{rank}.{name}" for name in ("out", "err")]
            for one in files:
                one.write_text("")
            own = alike | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = processes.Process(
                target=trains, args=([*TRAIN, *words], own, *map(str, files))
            )
            process.start()
            made.append(Member(rank, tmp_path, process))
        started.extend(made)
        return made

    yield start
    for one in started:
        one.process.kill()
        one.process.join()


def test_a_run_of_two_processes_is_one(start: Start, tmp_path: Path) -> None:
    """With exact ranks its numbers are one process's, up to float32; the last batch has 16 rows."""
    alone, out = tmp_path / "alone", tmp_path / "run"
    assert start(["--epochs", "2", "--out", str(alone)], 1)[0].ended()[0] == 0
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


def test_a_signal_to_one_stops_both_at_the_same_step(start: Start, tmp_path: Path) -> None:
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


def test_a_process_that_is_killed_is_named_and_ends_the_other(start: Start, tmp_path: Path) -> None:
    first, second = start(["--epochs", "5000", "--out", str(tmp_path / "run")])
    first.until("epoch 1/")
    second.process.kill()
    code, _, said = first.ended()
    assert code == 1 and "rank 1 on" in said and "Traceback" not in said, said
