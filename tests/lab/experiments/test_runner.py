"""The runner of many runs: what it stops, and which images it scores on."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from entprop_fast.lab.checkpoint import read
from entprop_fast.lab.corruptions.suites import generated_source
from entprop_fast.lab.experiments import runner
from entprop_fast.lab.report.progress import Reporter
from tests.children import running


def test_images_of_an_older_generator_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND W14: runs that all agree on an older generator's images are evaluated again."""
    config = SimpleNamespace(corruptions="generated")
    runs: Any = [SimpleNamespace(folder=Path(f"vanilla-{seed}"), config=config) for seed in (0, 1)]
    opened: list[str] = []

    def source(config: object) -> str:
        opened.append("data set")
        return generated_source("cifar-c", 0)

    monkeypatch.setattr(runner, "corruption_source", source)

    def others(*sources: str) -> set[Path]:
        records = {
            run.folder: {"corruption_source": one} for run, one in zip(runs, sources, strict=True)
        }
        return runner._other_images(runs, records, Reporter.quiet())

    old, now = generated_source("cifar-c", 0, generator=1), generated_source("cifar-c", 0)
    assert others(old, old) == {run.folder for run in runs}
    assert others(old, now) == {runs[0].folder}
    opened.clear()
    for settled in (now, "official CIFAR-10-C", "generated (ten kinds for digits)"):
        assert others(settled, settled) == set() and not opened


def test_ctrl_c_stops_every_run_with_its_checkpoint_saved(tmp_path: Path) -> None:
    """In a terminal it reaches the whole group; the first process alone answers."""
    out = tmp_path / "out"
    # Epochs of 600 steps: within the first one, only a stop saves a checkpoint.
    size = "--arch wrn16_2 --train-size 1200 --batch-size 2 --epochs 9 --device cpu".split()
    command = [sys.executable, "-m", "entprop_fast.compare", "--methods", "vanilla", "mixup", *size]
    folders = [out / f"{row}-0" for row in ("vanilla", "mixup")]
    more = ["--seeds", "0", "--jobs", "2", "--out", str(out)]
    with running([*command, *more]) as process:
        while process.poll() is None and not all((f / "config.toml").exists() for f in folders):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
        until = time.monotonic() + 60  # multiprocessing's own helper ends a moment after its parent
        with pytest.raises(ProcessLookupError):
            while time.monotonic() < until:
                os.killpg(process.pid, 0)
                time.sleep(0.05)
    assert process.returncode == 130
    assert error.startswith("stopped by SIGINT: 0 of 2 runs are finished")
    assert error.count("\n") == 1
    states = [read(folder / "checkpoint.pt") for folder in folders]
    assert all(0 < 600 * state["epoch"] + state["batch"] < 9 * 600 for state in states)
    assert any(state["batch"] for state in states)
    assert not list(out.glob("*/summary.json"))
