"""Killed, stopped and damaged runs end as the uninterrupted one does, byte for byte."""

from __future__ import annotations

import errno
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
from tests.children import end_with_parent
from tests.lab.conftest import Args, Call, assert_same, rows, stop_at, summary

KILLS, EPOCHS = 5, "30"

pytestmark = pytest.mark.usefixtures("without_pictures")


def command_named(said: str, module: str) -> list[str]:
    """Arguments of the command line that a stopped command names."""
    python, flag, found, *arguments = shlex.split(said.rpartition(": ")[2])
    assert (python, flag, found) == ("python", "-m", module)
    return arguments


def train_here(arguments: list[str]) -> None:
    end_with_parent()
    train.main(arguments)


def epochs_done(folder: Path) -> int:
    return len(rows(folder)) if (folder / "metrics.jsonl").exists() else 0


def test_killed_at_random_moments(tiny: Args, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    again = tiny(killed, "--epochs", EPOCHS, "--resume")
    assert train.main(tiny(whole, "--epochs", EPOCHS)) == 0
    # A fork server has imported all of it before the first kill; an optimiser imports dynamo.
    processes = multiprocessing.get_context("forkserver")
    modules = ["entprop_fast.train", "sklearn.datasets", "sklearn.model_selection", "torch._dynamo"]
    processes.set_forkserver_preload(modules)
    moments = random.Random(0)
    for kill in range(KILLS):
        process = processes.Process(target=train_here, args=(again,))
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
    assert train.main(again) == 0
    assert_same(killed, whole)


@pytest.mark.parametrize(
    ("signum", "step"),
    [
        (signal.SIGTERM, 0),  # before the folder is the run's
        (signal.SIGHUP, 2),
        (signal.SIGUSR1, 3),  # an epoch's last step
        (signal.SIGINT, 5),  # the run's last step
    ],
)
def test_stopped_in_the_middle_of_an_epoch(
    signum: signal.Signals, step: int, finished: Path, run: Call, tmp_path: Path
) -> None:
    """FOUND C12, N7: each signal saves, says what it saved, and names the command that goes on."""
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step, signum)
        said = run(out, code=128 + signum)
    assert said.startswith(f"stopped by {signum.name}: ")
    assert f"step {step + 1} of 6 is saved in {out}/checkpoint.pt" in said
    saved = read(out / "checkpoint.pt")
    assert 2 * saved["epoch"] + saved["batch"] == step + 1
    assert train.main(command_named(said, "entprop_fast.train")) == 0
    assert_same(out, finished)


def test_stopped_in_the_final_evaluation(finished: Path, run: Call, tmp_path: Path) -> None:
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
        said = run(out, code=143)
        assert "the run is trained" in said and not (out / "summary.json").exists()
        assert train.main(command_named(said, "entprop_fast.train")) == 0
    assert made == 50  # ten kinds, five severities, one batch
    assert not list(out.glob("*.part"))
    assert_same(out, finished)
    ours, theirs = summary(out), summary(finished)
    assert (ours["corruptions"], ours["sa"]) == (theirs["corruptions"], theirs["sa"])


@pytest.mark.parametrize("damage", ["flipped bit", "missing", "no folder"])
def test_a_damaged_checkpoint_costs_one_epoch(
    damage: str, finished: Path, run: Call, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    current = Path(shutil.copytree(finished, out)) / "checkpoint.pt"
    data = bytearray(current.read_bytes())
    data[len(data) // 3] ^= 4
    current.write_bytes(data)
    if damage == "missing":
        current.unlink()
    if damage == "no folder":
        shutil.rmtree(out)
    said = run(out, "--resume").partition("files in ")[0]
    assert ("checkpoint.prev.pt" in said) == (damage == "flipped bit")
    assert ("starting anew" in said) == (damage == "no folder")
    assert_same(out, finished)


@pytest.mark.parametrize("writes", [1, 7], ids=["at the start", "later"])
def test_a_full_disk_ends_a_run_in_one_line(writes: int, run: Call, tmp_path: Path) -> None:
    """The lock is written first, settings and metrics, then a checkpoint an epoch."""
    out, sync, left = tmp_path / "run", os.fsync, iter(range(writes))

    def full(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        error = run(out, code=1)
    assert f"'{out}/{'checkpoint.pt.new' if writes > 1 else 'config.toml'}'; " in error
    assert (f"the last good checkpoint is {out}/checkpoint.pt" in error) == (writes > 1)
    assert not list(out.glob("*.part"))
    run(out, "--resume")
