from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest

from entprop_fast.lab.cli import study
from entprop_fast.lab.experiments.studies import Options
from entprop_fast.lab.experiments.studies.form import cell, markdown, number
from entprop_fast.lab.experiments.studies.runs import RECORD, Probe, Run, run_all
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.errors import RunFailed, UsageError
from tests.children import running

from .conftest import KINDS

PNG = b"\x89PNG\r\n"


class Watcher(Probe):
    """Remembers the epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []

    def after_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def seen(self) -> list[int]:
        return self.epochs


def test_cells() -> None:
    values = (81.28, 5.254, 0.0654, -1.94, 7, "k=1", None)
    assert [cell(value) for value in values] == ["81.3", "5.25", "0.065", "-1.94", "7", "k=1", "–"]
    table = "| a    | b   |\n| ---- | --- |\n| 1    | –   |\n| 10.5 | x   |"
    assert markdown([{"a": 1, "b": None}, {"a": 10.5, "b": "x"}]) == table
    with pytest.raises(TypeError, match="b = None"):
        number({"b": None}, "b")


def test_a_run_is_trained_once_and_its_probe_kept(tiny: Options) -> None:
    runs = [Run(0, {"method": "vanilla"}, Watcher), Run(0, {"method": "mixup"}, Watcher)]
    first = run_all(tiny, runs, Reporter.quiet())
    assert [one["method"] for one in first] == ["vanilla", "mixup"]
    assert [one["seen"] for one in first] == [[1, 2], [1, 2]]
    assert all(one["gap"] == pytest.approx(one["train_accuracy"] - one["sa"]) for one in first)
    files = {path: path.stat().st_mtime_ns for path in tiny.out.rglob(RECORD)}
    assert run_all(tiny, runs, Reporter.quiet()) == first
    assert {path: path.stat().st_mtime_ns for path in tiny.out.rglob(RECORD)} == files
    # another setting and another probe are other runs
    others = [Run(0, {"method": "vanilla"}), Run(0, {"method": "vanilla", "lr": 0.05}, Watcher)]
    run_all(tiny, others, Reporter.quiet())
    assert len(list(tiny.out.rglob(RECORD))) == 4


def test_an_interrupted_run_begins_anew(tiny: Options) -> None:
    run = [Run(0, {"method": "vanilla"}, Watcher)]
    first = run_all(tiny, run, Reporter.quiet())
    next(tiny.out.rglob(RECORD)).unlink()
    again = run_all(tiny, run, Reporter.quiet())
    assert again[0]["hscore"] == first[0]["hscore"] and again[0]["seen"] == [1, 2]


def test_processes_and_this_one_agree(
    tiny: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the other processes measure every severity
    runs = [Run(seed, {"method": "mixup"}) for seed in (0, 1)]
    here = run_all(tiny, runs, Reporter.quiet())
    spread = replace(tiny, out=tmp_path / "spread", workers=2)
    there = run_all(spread, runs, Reporter.quiet())
    assert [one["hscore"] for one in here] == [one["hscore"] for one in there]
    assert [one["seed"] for one in there] == [0, 1]


def test_a_wrong_setting_is_refused_before_anything_is_trained(tiny: Options) -> None:
    runs = [Run(0, {"method": "vanilla"}), Run(0, {"method": "vanilla", "k": 0.5})]
    with pytest.raises(UsageError, match="has no option 'k'"):
        run_all(tiny, runs, Reporter.quiet())
    assert not tiny.out.exists()


def test_the_command_writes_and_prints(
    tiny: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "command"
    small = ["--train-size", "64", "--epochs", "1", "--seeds", "0", "1", "--workers", "1"]
    assert study.main(["ood", *small, "--device", "cpu", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    table = json.loads((out / "table.json").read_text())
    page = (out / "table.md").read_text()
    assert table["sentence"] in page and table["sentence"] in printed
    assert table["setting"]["seeds"] == [0, 1] and len(table["rows"]) == 5 + len(KINDS)
    assert [line for line in page.splitlines() if line.startswith("| k-NN ")]
    assert (out / "picture.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scores"], "nearest: score"),
        (["score", "--seeds", "1", "1"], "different seeds"),
        (["score", "--workers", "0"], "at least 1"),
        (["score", "--archs", "wrn10_1", "wrn10_1"], "different ones"),
        (["score", "--archs", "wrn1"], "wrn1"),
        (["ratio", "--archs", "wrn10_1"], "only the study score"),
        (["score", "--recipe", "digit"], "nearest: digits"),
        (["score", "--train-size", "5000"], "train_size = 5000"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if "--workers" not in arguments:
        arguments = [*arguments, "--workers", "1"]
    assert study.main([*arguments, "--out", str(out), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert not out.exists()
    assert message in error and error.count("\n") == 1


class Killed(Probe):
    """Ends its own process, as a machine without memory would."""

    def after_epoch(self, epoch: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_fails_the_study_in_one_line(tiny: Options) -> None:
    runs = [Run(seed, {"method": "vanilla"}, Killed) for seed in (0, 1)]
    with pytest.raises(RunFailed, match=r"killed.*--workers.*run again to go on"):
        run_all(replace(tiny, workers=2), runs, Reporter.quiet())
    assert not active_children()


def test_a_failed_run_is_named(tiny: Options) -> None:
    with pytest.raises(RunFailed, match=r"the run in .*vanilla-3-.*: .* logits that are NaN"):
        run_all(tiny, [Run(3, {"method": "vanilla", "lr": 1e30})], Reporter.quiet())


def test_ctrl_c_stops_the_whole_group(tmp_path: Path) -> None:
    out = tmp_path / "study"
    small = ["--train-size", "64", "--epochs", "1000", "--workers", "2", "--device", "cpu"]
    command = [sys.executable, "-m", "entprop_fast.study", "ood", *small, "--out", str(out)]
    with running(command) as process:
        while process.poll() is None and not list(out.glob("runs/*/metrics.jsonl")):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        until = time.monotonic() + 10  # multiprocessing's own helper ends a moment after its parent
        with pytest.raises(ProcessLookupError):
            while time.monotonic() < until:
                os.killpg(process.pid, 0)
                time.sleep(0.05)
    assert process.returncode == 130
    assert errors.startswith("stopped by SIGINT: 0 of ") and errors.count("\n") == 1
