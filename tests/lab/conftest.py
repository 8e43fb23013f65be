"""Runs so small that a test can afford several, and one finished run that tests may read."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.cli import train
from entprop_fast.lab.report import pictures
from entprop_fast.lab.training import finish
from entprop_fast.lab.training.trainer import Trainer

Args = Callable[..., list[str]]
Call = Callable[..., str]
TIMES = ("seconds", "train_seconds", "images_per_second")


def model(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def assert_same(found: Path, expected: Path) -> None:
    """Check that two runs trained the same, byte for byte, but for what a clock decides."""
    assert model(found) == model(expected)
    assert summary(found)["cost"] == summary(expected)["cost"]
    ours, theirs = ([row | dict.fromkeys(TIMES) for row in rows(one)] for one in (found, expected))
    assert ours == theirs


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, signum: signal.Signals) -> None:
    """Send this process a signal in the middle of a step of the next run."""
    original = Trainer._train_batch

    def train_batch(self: Trainer, *batch: Any) -> bool:
        if self.step == step:
            os.kill(os.getpid(), signum)
        return original(self, *batch)

    monkeypatch.setattr(Trainer, "_train_batch", train_batch)


@pytest.fixture(scope="session")
def tiny() -> Args:
    """Arguments of a run of 2 steps an epoch, into the folder given first."""

    def arguments(out: Path, *more: str) -> list[str]:
        small = ["--train-size", "40", "--batch-size", "20", "--epochs", "3", "--threads", "1"]
        return [*small, "--device", "cpu", "--out", str(out), *more]

    return arguments


@pytest.fixture(scope="session")
def finished(tiny: Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished EntProp run; read only."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert train.main(tiny(folder)) == 0
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Call a command, check its exit code; return what it printed, or its one line of error."""

    def called(command: Any, words: list[str], code: int = 0) -> str:
        capsys.readouterr()
        assert command.main(words) == code
        said = capsys.readouterr()
        if code == 0:
            return said.out
        begin = {1: "failed: ", 2: "error: "}.get(code, "stopped by ")
        assert said.err.startswith(begin) and said.err.count("\n") == 1, said.err
        return said.err

    return called


@pytest.fixture
def run(call: Call, tiny: Args) -> Call:
    """Train a tiny run into a folder, as `call` does."""
    return lambda out, *more, code=0: call(train, tiny(out, *more), code)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw nothing: half of a tiny run's time, spent where nothing of it is tested."""
    monkeypatch.setattr(finish, "draw_heat_map_of", lambda *args: None)
    for name in ("draw_curves", "draw_examples"):
        monkeypatch.setattr(pictures, name, lambda *args: None)
