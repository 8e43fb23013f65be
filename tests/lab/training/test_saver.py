"""Check that saves are written beside the training, one at a time, and waited for at the end."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast.lab import checkpoint, stopping
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.deploy import NetworkSpec
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.lab.training.save_times import SaveTimes
from entprop_fast.lab.training.saver import Saver

SLOW = 0.3  # seconds of a write


@pytest.fixture
def saver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Saver:
    """One whose disk is slow."""
    write = checkpoint.write

    def slowly(path: Path, state: dict[str, Any]) -> None:
        assert threading.current_thread() is not threading.main_thread()
        time.sleep(SLOW)
        write(path, state)

    monkeypatch.setattr(checkpoint, "write", slowly)
    spec = NetworkSpec(arch="wrn10_0.5", num_classes=10, in_channels=1)
    return Saver(recipe.resolve("digits"), spec)


def seconds(began: float) -> float:
    return time.monotonic() - began


def test_the_loop_goes_on_and_changes_nothing_of_what_is_saved(
    saver: Saver, tmp_path: Path
) -> None:
    weight = torch.zeros(3)
    with saver.open(RunFolder(tmp_path)):
        saver.save(lambda: {"weight": weight})  # the first is waited for
        assert checkpoint.read(tmp_path / "checkpoint.pt")["weight"].tolist() == [0, 0, 0]
        weight.fill_(1)
        began = time.monotonic()
        saver.save(lambda: {"weight": weight})
        assert seconds(began) < SLOW / 2
        weight.fill_(2)
        saver.save(lambda: {"weight": weight}, needed=False)  # waits for the one before
        assert seconds(began) > SLOW
        assert checkpoint.read(tmp_path / "checkpoint.pt")["weight"].tolist() == [1, 1, 1]
    assert checkpoint.read(tmp_path / "checkpoint.pt")["weight"].tolist() == [2, 2, 2]


def test_an_error_waits_for_the_writer(saver: Saver, tmp_path: Path) -> None:
    with pytest.raises(KeyError), saver.open(RunFolder(tmp_path)):
        for step in range(2):
            saver.save(lambda step=step: {"step": step})  # type: ignore[misc]
        raise KeyError
    assert checkpoint.read(tmp_path / "checkpoint.pt")["step"] == 1


def test_a_time_limit_leaves_time_for_the_write_underway_and_its_own(
    saver: Saver, tmp_path: Path
) -> None:
    limit = stopping.TimeLimit(3600, "1h")
    limit.reserve = 0.0
    with stopping.limited(limit), saver.open(RunFolder(tmp_path)):
        saver.save(dict)
    assert 3 * SLOW <= limit.reserve < 20 * SLOW


def test_any_save_starts_the_clock_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    times = SaveTimes("10s")
    now = 9.0
    times.saved()
    now = 18.0
    assert not times.due(1)
    now = 19.0
    assert times.due(2)
