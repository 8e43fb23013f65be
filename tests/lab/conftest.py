"""Runs so small that a test can afford several, and one finished run that tests may read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from entprop_fast.lab.cli.train import main
from entprop_fast.lab.report import pictures
from entprop_fast.lab.training import finish

Args = Callable[..., list[str]]


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
    assert main(tiny(folder)) == 0
    return folder


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw nothing: half of a tiny run's time, spent where nothing of it is tested."""
    monkeypatch.setattr(finish, "draw_heat_map_of", lambda *args: None)
    for name in ("draw_curves", "draw_examples"):
        monkeypatch.setattr(pictures, name, lambda *args: None)
