"""Killed, stopped and damaged runs end as the uninterrupted one does, byte for byte."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab import corruptions
from entprop_fast.lab.checkpoint import read
from entprop_fast.lab.cli import train
from entprop_fast.lab.corruptions import suites
from entprop_fast.lab.training.trainer import Trainer
from tests.children import end_with_parent
from tests.lab.conftest import Args

TIMES = ("seconds", "train_seconds", "images_per_second")
KILLS = 10
EPOCHS = "40"

pytestmark = pytest.mark.usefixtures("without_pictures")


def model(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics without what a clock decides."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in TIMES}
        for line in lines
    ]


def cost(folder: Path) -> float:
    return float(json.loads((folder / "summary.json").read_text())["cost"])


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, signum: signal.Signals) -> None:
    """Send this process a signal in the middle of a step of the next run."""
    original = Trainer._train_batch

    def train_batch(self: Trainer, *batch: Any) -> bool:
        if self.step == step:
            os.kill(os.getpid(), signum)
        return original(self, *batch)

    monkeypatch.setattr(Trainer, "_train_batch", train_batch)


def command_named(said: str, module: str) -> list[str]:
    """Arguments of the command line that a stopped command names."""
    python, flag, found, *arguments = shlex.split(said.rpartition(": ")[2])
    assert (python, flag, found) == ("python", "-m", module)
    return arguments


def test_killed_at_ten_random_moments(tiny: Args, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train.main(tiny(whole, "--epochs", EPOCHS)) == 0
    # A fork server has imported all of it before the first kill; an optimiser imports dynamo.
    processes = multiprocessing.get_context("forkserver")
    modules = ["entprop_fast.train", "sklearn.datasets", "sklearn.model_selection", "torch._dynamo"]
    processes.set_forkserver_preload(modules)
    moments = random.Random(0)
    for kill in range(KILLS):
        process = processes.Process(
            target=train_here, args=(tiny(killed, "--epochs", EPOCHS, "--resume"),)
        )
        done = epochs_done(killed)
        process.start()
        try:
            # Every other one anywhere, its start included; the others later, or nothing is done.
            while kill % 2 and process.is_alive() and epochs_done(killed) <= done:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.1 if kill % 2 else 0.3))
        finally:
            process.kill()
            process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (killed / "summary.json").exists()
    assert train.main(tiny(killed, "--epochs", EPOCHS, "--resume")) == 0
    assert model(killed) == model(whole)
    assert rows(killed) == rows(whole)
    assert cost(killed) == cost(whole)


def train_here(arguments: list[str]) -> None:
    end_with_parent()
    train.main(arguments)


def epochs_done(folder: Path) -> int:
    metrics = folder / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


@pytest.mark.parametrize(
    ("signum", "code", "step"),
    [
        (signal.SIGINT, 130, 2),
        (signal.SIGHUP, 129, 2),
        (signal.SIGUSR1, 138, 3),
        (signal.SIGTERM, 143, 0),  # before the folder is the run's
        (signal.SIGTERM, 143, 3),  # an epoch's last step
        (signal.SIGTERM, 143, 5),  # the run's last step
    ],
)
def test_stopped_in_the_middle_of_an_epoch(
    signum: signal.Signals,
    code: int,
    step: int,
    finished: Path,
    tiny: Args,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """FOUND C12, N7: each signal saves, says what it saved, and names the command that goes on."""
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step, signum)
        assert train.main(tiny(out)) == code
    said = capsys.readouterr().err
    assert said.startswith(f"stopped by {signum.name}: ") and said.count("\n") == 1
    assert f"step {step + 1} of 6 is saved in {out}/checkpoint.pt" in said
    saved = read(out / "checkpoint.pt")
    assert 2 * saved["epoch"] + saved["batch"] == step + 1
    assert train.main(command_named(said, "entprop_fast.train")) == 0
    assert model(out) == model(finished)
    assert rows(out) == rows(finished)
    assert cost(out) == cost(finished)


def test_stopped_in_the_final_evaluation(
    finished: Path, tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND C6: it goes on, and counts no corrupted image twice."""
    out, original, made = tmp_path / "run", corruptions.corrupt, 0

    def corrupt(*args: Any, **settings: Any) -> Any:
        nonlocal made
        made += 1
        if made == 30:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suites, "corrupt", corrupt)
        assert train.main(tiny(out)) == 143
        said = capsys.readouterr().err
        assert "the run is trained" in said and not (out / "summary.json").exists()
        assert train.main(command_named(said, "entprop_fast.train")) == 0
    assert made == 50  # ten kinds, five severities, one batch
    assert not list(out.glob("*.part"))
    assert model(out) == model(finished)
    assert rows(out) == rows(finished)
    ours, theirs = (json.loads((one / "summary.json").read_text()) for one in (out, finished))
    assert (ours["corruptions"], ours["sa"]) == (theirs["corruptions"], theirs["sa"])


def test_handlers_are_put_back(tiny: Args, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert train.main(tiny(tmp_path / "run", "--epochs", "1")) == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing"])
def test_a_damaged_checkpoint_costs_one_epoch(
    damage: str, finished: Path, tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    current = out / "checkpoint.pt"
    data = bytearray(current.read_bytes())
    data[len(data) // 3] ^= 4
    if damage == "missing":
        current.unlink()
    else:
        current.write_bytes(data if damage == "flipped bit" else data[: len(data) // 2])
    assert train.main(tiny(out, "--resume")) == 0
    said = capsys.readouterr().out.partition("files in ")[0]
    assert ("checkpoint.prev.pt" in said) == (damage != "missing")
    assert model(out) == model(finished)
    assert rows(out) == rows(finished)


def test_both_checkpoints_damaged_is_bad_input(
    finished: Path, tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for name in ("checkpoint.pt", "checkpoint.prev.pt"):
        (out / name).write_bytes((out / name).read_bytes()[:1000])
    assert train.main(tiny(out, "--resume")) == 2
    assert "no whole checkpoint is left" in capsys.readouterr().err


def test_resume_of_nothing_starts_and_says_so(
    finished: Path, tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train.main(tiny(out, "--resume")) == 0
    assert "starting anew" in capsys.readouterr().out
    assert model(out) == model(finished)


def test_resume_of_a_finished_run_changes_nothing(
    finished: Path, tiny: Args, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "summary.json").unlink()
    assert train.main(tiny(out, "--resume")) == 0
    assert model(out) == model(finished)
    assert (out / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_rows_after_the_checkpoint_are_not_doubled(
    finished: Path, tiny: Args, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.move(out / "checkpoint.prev.pt", out / "checkpoint.pt")
    assert train.main(tiny(out, "--resume")) == 0
    assert rows(out) == rows(finished)


@pytest.mark.parametrize("writes", [0, 6], ids=["at the start", "later"])
def test_a_full_disk_ends_a_run_in_one_line(
    writes: int,
    tiny: Args,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Settings and metrics are written first, then a checkpoint an epoch."""
    out, sync, left = tmp_path / "run", os.fsync, iter(range(writes))

    def full(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert train.main(tiny(out)) == 1
    file, kept = (
        (f"{out}/checkpoint.pt.new", f"the last good checkpoint is {out}/checkpoint.pt")
        if writes
        else (f"{out}/config.toml", "no checkpoint was saved yet")
    )
    error = capsys.readouterr().err
    assert error == f"failed: [Errno 28] No space left on device: '{file}'; {kept}\n"
    assert not list(out.glob("*.part"))
    assert train.main(tiny(out, "--resume")) == 0
