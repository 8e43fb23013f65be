"""Studies of data sets of image files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from entprop_fast.lab.cli import study
from entprop_fast.lab.corruptions import suites
from entprop_fast.lab.corruptions.common import COMMON_KINDS
from tests.tiny_data import layouts

RECIPE = """
arch = "wrn10_0.5"
dataset = "imagenet"
epochs = 1
batch_size = 6
image_size = 16
workers = 0
augment = "resized-crop-flip"
lr = 0.05
[method]
name = "entprop"
"""
KINDS = COMMON_KINDS[:2]
SOURCE = "generated (CIFAR-C's strengths, seed 0, frost on procedural textures, generator 2)"


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a study of a folder of images, for a recipe that names another set and no radius."""
    layouts.folder(tmp_path / "birds")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(suites, "COMMON_KINDS", KINDS)  # of 15: most of the time is evaluation
    small = "--seeds 0 --train-size 12 --device cpu --workers 1 --dataset folder:birds"
    where = ["--recipe", str(tmp_path / "tiny.toml"), "--data-dir", str(tmp_path)]
    return [*small.split(), *where, "--out", str(tmp_path / "out")]


@pytest.mark.parametrize("name", ["components", "ood", "norms", "entropy", "bias"])
def test_a_study_runs(name: str, flags: list[str], tmp_path: Path) -> None:
    assert study.main([name, *flags]) == 0
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert table["setting"]["dataset"] == "folder:birds"
    assert table["setting"]["corruption_source"] == SOURCE
    assert f"Corruptions: {SOURCE}." in (tmp_path / "out" / "table.md").read_text()
    if name == "ood":
        shown = [row["variant"] for row in table["rows"] if row["variant"].startswith("to ")]
        assert shown == [f"to {kind}" for kind in KINDS]


def test_runs_of_one_table_are_scored_on_the_same_images(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study.main(["components", *flags]) == 0
    table = tmp_path / "out" / "table.json"
    before = json.loads(table.read_text())
    record = next((tmp_path / "out" / "runs").glob("*/study.json"))
    other = {"corruption_source": "official ImageNet-C", "hscore": 99.0}
    record.write_text(json.dumps(json.loads(record.read_text()) | other))
    capsys.readouterr()
    assert study.main(["components", *flags]) == 0
    assert "1 finished runs were scored on others: evaluated again" in capsys.readouterr().out
    assert json.loads(table.read_text()) == before


def test_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refused = {
        "--corruptions none": "a study compares Hscores",
        "--corruptions official": "there is no such set of folder:birds",
        "--dataset folder:cats": "cats has neither train/ nor train.txt",
        "--dataset digitz": "nearest: digits",
        "--train-size 2": "--train-size",
    }
    for more, message in refused.items():
        for name, size in (("components", "12"), ("size", "6")):
            arguments = [name, *flags, "--train-size", size, *more.split()]
            assert study.main(arguments) == 2, (name, more)
            error = capsys.readouterr().err
            assert message in error and error.count("\n") == 1, (name, more)
