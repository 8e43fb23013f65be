from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from entprop_fast.lab.cli import study
from entprop_fast.lab.experiments.studies import Options
from entprop_fast.lab.experiments.studies.form import cell, markdown, number
from tests.children import running

from .conftest import KINDS

PNG = b"\x89PNG\r\n"


def test_cells() -> None:
    values = (81.28, 5.254, 0.0654, -1.94, 7, "k=1", None)
    assert [cell(value) for value in values] == ["81.3", "5.25", "0.065", "-1.94", "7", "k=1", "–"]
    table = "| a    | b   |\n| ---- | --- |\n| 1    | –   |\n| 10.5 | x   |"
    assert markdown([{"a": 1, "b": None}, {"a": 10.5, "b": "x"}]) == table
    with pytest.raises(TypeError, match="b = None"):
        number({"b": None}, "b")


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
