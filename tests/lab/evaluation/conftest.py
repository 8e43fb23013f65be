"""Train two small runs once, for the tests of the evaluate command."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab import data
from entprop_fast.lab.cli.train import main as train


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs on digits: one with dual norms, one without."""
    folder = tmp_path_factory.mktemp("runs")
    small = "--train-size 40 --batch-size 20 --epochs 1 --threads 1 --device cpu"
    for method in ("entprop", "vanilla"):
        flags = [*small.split(), "--corruptions", "none", "--method", method]
        assert train([*flags, "--out", str(folder / method)]) == 0
    return [folder / "entprop", folder / "vanilla"]


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many test images digits have: few."""
    original, count = data.load, 40

    def load(name: str, **settings: Any) -> data.ImageSet:
        found = original(name, **settings)
        assert isinstance(found, data.ImageData)
        images, labels = found.test_images[:count], found.test_labels[:count]
        return replace(found, test_images=images, test_labels=labels)

    monkeypatch.setattr(data, "load", load)
    return count
