"""A comparison of a data set of image files, whose runs read with processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from entprop_fast.lab.cli.compare import main
from tests.tiny_data import layouts

SMALL = "--arch wrn10_0.5 --batch-size 6 --image-size 32 --epochs 1 --device cpu --jobs 1"


def test_two_methods_and_two_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.pets(tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "out"
    flags = ["--recipe", "imagenet", "--dataset", "pets", "--data-dir", str(tmp_path / "data")]
    rows = ["--methods", "vanilla", "entprop", "--seeds", "0", "1"]
    assert main([*flags, *rows, *SMALL.split(), "--out", str(out)]) == 0
    found = json.loads((out / "compare.json").read_text())
    source = "generated (CIFAR-C's strengths, seed 0, frost on procedural textures, generator 2)"
    assert found["corruption_source"] == source
    assert f"Corruptions: {source}." in (out / "compare.md").read_text()
    for row in found["methods"]:
        assert [run["seed"] for run in row["runs"]] == [0, 1]
        assert all(len(run["corruptions"]) == 15 for run in row["runs"])
        assert row["scores"]["ra"]["mean"] == sum(run["ra"] for run in row["runs"]) / 2
    assert (out / "compare.png").exists()
    # Of the processes side by side, each reads with its share of the cores.
    assert "workers = " in (out / "vanilla-0" / "config.toml").read_text()
