"""Comparisons so small that a test can afford them, and a finished one that tests may read."""

from __future__ import annotations

from pathlib import Path

import pytest

from entprop_fast.lab.cli.compare import main

SMALL = "--train-size 40 --batch-size 20 --epochs 2 --device cpu".split()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows with two seeds; read only."""
    folder = tmp_path_factory.mktemp("comparisons") / "finished"
    rows = ["--methods", "vanilla", "entprop:score=random", "--seeds", "0", "1"]
    assert main([*rows, *SMALL, "--out", str(folder)]) == 0
    return folder
