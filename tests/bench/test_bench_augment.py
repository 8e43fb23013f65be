"""bench/augment without timing anything: its cases, a peer, and what its table says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench import rows
from bench.augment import table
from bench.augment.cases import AUTHORS, CASES, SIZES, Case
from bench.augment.pillow_pixmix import PillowPixMix
from bench.augment.table import Measured
from entprop_fast.augment import AUGMENTATIONS, PixMix

from .conftest import WHERE


def test_every_case_has_a_peer() -> None:
    for _, case in CASES:
        assert case.name in AUGMENTATIONS and (case.peer is None) == (case.name in AUTHORS)


def test_images_are_mixed_by_the_law_of_ours(tmp_path: Path) -> None:
    """Shares of the black, the white and the mean level of grey images under black pictures."""
    count, side = 1500, 8
    np.save(tmp_path / "black.npy", np.zeros((2, side + 1, side + 1, 3), dtype=np.uint8))
    images = torch.full((count, 3, side, side), 96, dtype=torch.uint8)
    ours = PixMix(mixing_set=str(tmp_path / "black.npy"))(images, torch.arange(count)) / 255
    picture = Image.new("RGB", (side, side), (96, 96, 96))
    mix = PillowPixMix([Image.new("RGB", (side + 1, side + 1))] * 2)
    theirs = torch.stack([mix(picture) for _ in range(count)])
    assert theirs.shape == ours.shape and theirs.dtype == torch.float32
    for found, wanted in zip(_statistics(theirs), _statistics(ours), strict=True):
        assert abs(found - wanted) < 4 * (0.25 / count) ** 0.5 * 2**0.5  # of two shares


def _statistics(images: torch.Tensor) -> list[float]:
    means = images.mean((1, 2, 3))
    same = float((images == images[:, :1, :1, :1]).flatten(1).all(1).float().mean())
    return [*(float((means < level).float().mean()) for level in (0.02, 0.2, 0.37, 0.5)), same]


def test_the_table_says_where_each_row_is_from(kept: dict[str, list[rows.Row]]) -> None:
    speed = {"ours": 1e-4, "authors": 2e-3}
    found = table.rows_of([Measured(SIZES[0], Case("pixmix"), speed)])
    assert found[0]["ratio"] == 20 and found[0]["verdict"] == "reached"
    again = table.rows_of([Measured(SIZES[1], Case("pixmix"), {"ours": 1e-3, "authors": 2e-3})])
    kept[table.NAME] = [*(row | WHERE for row in found), again[0] | WHERE | {"git": "later"}]
    said = table.section(Path("docs/measurements.md"))
    assert "| pixmix | 32 | 10,000 | – | – | 500 |" in said
    assert "Targets missed: pixmix at 224 against authors." in said
    assert "abc, later)" in said
