"""Check torchvision beside a torch that it was not built for: mended if that is all, else named."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from entprop_fast import optional
from entprop_fast.lab.cli import train
from tests.children import printed, run_python
from tests.tiny_data import layouts

SMALL = (
    "--epochs 1 --arch wrn10_0.5 --batch-size 6 --image-size 32 --corruptions none "
    "--workers 1 --device cpu --threads 1"
)


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """Words of a small run on image files."""
    layouts.imagenet(tmp_path / "data")
    where = ["--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    return ["--recipe", "imagenet", *SMALL.split(), *where]


def test_a_recipe_of_files_runs_outside_pytest(small: list[str], tmp_path: Path) -> None:
    """Where nothing but the package makes torchvision importable."""
    done = run_python("-m", "entprop_fast.train", *small, XDG_CACHE_HOME=str(tmp_path / "cache"))
    printed(done)
    assert (tmp_path / "run" / "summary.json").exists()
    # Nothing, or the one warning in one line.
    assert done.stderr.count("\n") == done.stderr.count("its compiled ops") <= 1


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("operator torchvision::roi_align does not exist"),
        RuntimeError(
            "Detected that PyTorch and torchvision were compiled with other CUDA versions"
        ),
        AttributeError("module 'torch.library' has no attribute 'register_fake'"),
    ],
)
def test_another_failure_is_one_line(
    failure: Exception,
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(name: str) -> None:
        raise failure

    monkeypatch.setattr(optional, "importlib", SimpleNamespace(import_module=refuse))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert train.main(small) == 2
    error = capsys.readouterr().err
    assert "does not load beside this torch" in error and str(failure) in error
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_missing_torchvision_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"a test needs torchvision: pip install .*\[vision\]"):
        optional.import_torchvision("models", purpose="a test")
