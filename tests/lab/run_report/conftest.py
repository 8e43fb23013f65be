"""A report of the finished run that tests may read, and runs that are like it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from entprop_fast.lab.cli import report
from entprop_fast.lab.run_report import curves
from tests.lab.run_report.read_page import Page

Copied = Callable[..., Path]


@pytest.fixture(scope="session")
def written(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a finished run; read only."""
    out = tmp_path_factory.mktemp("reports") / "one.html"
    assert report.main([str(finished), "--out", str(out), "--threads", "1"]) == 0
    return out


@pytest.fixture(scope="session")
def page(written: Path) -> Page:
    return Page(written)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Copied:
    """Copy the finished run without some of its files."""

    def copy(name: str, *without: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(finished, folder)
        for one in without:
            (folder / one).unlink()
        return folder

    return copy


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves are not drawn: most of a report's time, spent where nothing of it is tested."""

    def draw(*_: Any) -> Markup:
        return Markup("<svg></svg>")

    monkeypatch.setattr(curves, "_draw", draw)
