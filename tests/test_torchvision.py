"""Check torchvision beside a torch that it was not built for: mended if that is all, else named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from entprop_fast import optional
from entprop_fast.lab.cli import train
from tests.tiny_data import layouts

SMALL = "--epochs 1 --arch wrn10_0.5 --batch-size 6 --image-size 32 --corruptions none"


def test_a_recipe_of_files_runs_outside_pytest(tmp_path: Path) -> None:
    """Where nothing but the package makes torchvision importable."""
    layouts.imagenet(tmp_path / "data")
    flags = [*SMALL.split(), "--workers", "1", "--device", "cpu", "--threads", "1"]
    where = ["--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "entprop_fast.train", "--recipe", "imagenet", *flags, *where],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    layouts.imagenet(tmp_path / "data")

    def refuse(name: str) -> None:
        raise failure

    monkeypatch.setattr(optional, "importlib", SimpleNamespace(import_module=refuse))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    where = ["--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    assert train.main(["--recipe", "imagenet", *SMALL.split(), *where]) == 2
    error = capsys.readouterr().err
    assert "does not load beside this torch" in error and str(failure) in error
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_missing_torchvision_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"a test needs torchvision: pip install .*\[vision\]"):
        optional.import_torchvision("models", purpose="a test")
