"""Train two small runs once, for the tests of the evaluate command."""

from pathlib import Path

import pytest

from entprop_fast.lab.cli.train import main as train


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs on digits: one with dual norms, one without."""
    folder = tmp_path_factory.mktemp("runs")
    small = "--train-size 40 --batch-size 20 --epochs 1 --threads 1 --device cpu".split()
    for method in ("entprop", "vanilla"):
        assert train([*small, "--method", method, "--out", str(folder / method)]) == 0
    return [folder / "entprop", folder / "vanilla"]
