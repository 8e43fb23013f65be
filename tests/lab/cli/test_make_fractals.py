"""The command that makes fractals writes what PixMix reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from entprop_fast.augment import PixMix
from entprop_fast.augment.fractal_cache import cache_folder, file_name, fractals
from entprop_fast.lab.cli import data
from tests.lab.conftest import Call

SMALL = ["fractals", "--count", "18", "--image-size", "8"]


def test_fractals_are_cached_and_shown(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sheet = tmp_path / "sheet.png"
    said = call(data, [*SMALL, "--seed", "2", "--sheet", str(sheet)])
    path = cache_folder() / file_name(18, 8, 2)
    assert str(path) in said
    pictures = fractals(18, 8, 2)
    shown = np.asarray(Image.open(sheet))
    assert shown.shape == (16, 128, 3)
    assert np.array_equal(shown[8:16, 8:16], pictures[17].permute(1, 2, 0))
    before = path.read_bytes()
    assert "are there" in call(data, [*SMALL, "--seed", "2"])
    assert path.read_bytes() == before


def test_fractals_of_a_folder_are_a_mixing_set(tmp_path: Path, call: Call) -> None:
    said = call(data, [*SMALL, "--out", str(tmp_path / "new" / "folder")])
    path = said.rpartition("mixing_set=")[2].strip()
    images = torch.zeros(20, 3, 7, 7, dtype=torch.uint8)
    assert len(PixMix(mixing_set=path, beta=1.0)(images, torch.arange(20)).unique()) > 20


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["fractals", "digits"], "digits"),
        (["fractals", "--data-dir", "here"], "here"),
        (["fractals", "--count", "0"], "--count"),
        (["fractals", "--image-size", "7"], "--image-size"),
        (["fractals", "--sheet", "sheet.jpg"], "--sheet sheet.jpg"),
        ([*SMALL, "--out", "/dev/null/x"], "/dev/null"),
        ([*SMALL, "--out", ".", "--sheet", "no/sheet.png"], "no/sheet.png"),
        (["check", "digits", "--count", "3"], "--count"),
        (["fractal"], "nearest: fractals"),
    ],
)
def test_refusals(
    words: list[str], named: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named in call(data, words, 2)


def test_a_broken_set_is_refused(tmp_path: Path, call: Call) -> None:
    (tmp_path / file_name(18, 8, 0)).write_text("broken")
    assert file_name(18, 8, 0) in call(data, [*SMALL, "--out", str(tmp_path)], 2)
