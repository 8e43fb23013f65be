"""The train command as a job of two processes: one run, one output, one ending."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.children import running

TRAIN = (
    *("--train-size", "64", "--batch-size", "20", "--no-drop-last", "--device", "cpu"),
    *("--arch", "wrn10_0.5", "--corruptions", "none"),
)
Process = subprocess.Popen[str]


@pytest.fixture
def start() -> Iterator[object]:
    """Start as many processes as torchrun would, with its variables."""
    with ExitStack() as stack, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

        def start(words: Sequence[str], world: int = 2) -> list[Process]:
            command = [sys.executable, "-m", "entprop_fast.train", *TRAIN, *words]
            alike = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            alike |= {"OMP_NUM_THREADS": "1"}
            free.close()
            return [
                stack.enter_context(running(command, RANK=str(r), LOCAL_RANK=str(r), **alike))
                for r in range(world)
            ]

        yield start


def ended(process: Process) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a process."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def until(process: Process, begin: str) -> None:
    """Read its output until a line begins so."""
    assert process.stdout is not None
    assert any(line.startswith(begin) for line in process.stdout), ended(process)


def test_a_run_of_two_processes_is_one(start: object, tmp_path: Path) -> None:
    """The last batch has 4 rows, and evaluation has more batches than one."""
    out = tmp_path / "run"
    first, other = map(ended, start(["--epochs", "2", "--out", str(out)]))  # type: ignore[operator]
    assert first[0] == 0 and "epoch 2/2" in first[1], first
    assert other == (0, "", "")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and rows[1]["step"] == 8
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cost"] == pytest.approx(2 * (1 + 14 / 64))  # m = 2 of 10 rows, 1 of 2
    assert not (out / ".lock").exists()
    codes = [ended(one)[0::2] for one in start(["--epochs", "2", "--out", str(out)])]  # type: ignore[operator]
    assert [code for code, _ in codes] == [2, 2]
    assert "--resume" in codes[0][1] and codes[0][1].count("\n") == 1 and codes[1][1] == ""


def test_a_signal_to_one_stops_both_at_the_same_step(start: object, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--epochs", "5000", "--out", str(out)]
    processes: list[Process] = start(words)  # type: ignore[operator]
    until(processes[0], "epoch 1/")
    processes[1].send_signal(signal.SIGTERM)
    (code, _, said), other = map(ended, processes)
    assert code == 143 and "SIGTERM" in said and "--resume" in said, said
    assert other[0::2] == (143, "")
    assert (out / "checkpoint.pt").is_file()


def test_a_process_that_is_killed_is_named_and_ends_the_other(
    start: object, tmp_path: Path
) -> None:
    processes: list[Process] = start(["--epochs", "5000", "--out", str(tmp_path / "run")])  # type: ignore[operator]
    until(processes[0], "epoch 1/")
    processes[1].kill()
    code, _, said = ended(processes[0])
    assert code == 1 and "rank 1 on" in said and "Traceback" not in said, said
