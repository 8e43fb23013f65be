"""Studies so small that a test can afford each once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from entprop_fast.lab.corruptions import suites
from entprop_fast.lab.experiments.studies import Options
from entprop_fast.lab.experiments.studies.form import Row

KINDS = ("gaussian", "blur")


def lead(mean: float, low: float, high: float) -> Row:
    """The cells of a difference of five seeds that is clear where its interval is without 0."""
    p = 0.3 if low <= 0 <= high else 0.01
    return {"difference": mean, "low": low, "high": high, "p": p, "pairs": 5}


def records(*hscores: float) -> list[dict[str, float]]:
    """Made-up records of a variant, one a seed."""
    return [{"sa": h + 1, "ra": h - 1, "hscore": h, "cost": 58.0} for h in hscores]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose runs the tests share: what one has trained the next reads back."""
    return tmp_path_factory.mktemp("study")


@pytest.fixture
def shared(tiny: Options, trained: Path) -> Options:
    """`tiny`, with the runs of other tests."""
    return replace(tiny, out=trained)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """One seed, one step of 64 images an epoch, in this process, two corruptions."""
    monkeypatch.setattr(suites, "CORRUPTIONS", KINDS)  # of 10: most of the time is evaluation
    return Options(
        out=tmp_path / "study", seeds=(0,), train_size=64, epochs=2, device="cpu", workers=1
    )
