"""Check the package as others get it: wheel, source archive, and a build where parts miss."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast.optional import require

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("entprop_fast", "kernels", "csrc", "tests", "bench", "docs")
FILES = (
    "entprop_console.py",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "LICENSE",
    "README.md",
    "Makefile",
)
GENERATED = shutil.ignore_patterns("__pycache__", "*.so")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the source tree, symlink included, so that building leaves no traces in it."""
    folder = tmp_path_factory.mktemp("source") / "entprop-fast"
    for name in filter(lambda name: (ROOT / name).exists(), FOLDERS):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=GENERATED)
    for name in filter(lambda name: (ROOT / name).exists(), FILES):
        shutil.copy(ROOT / name, folder)
    return folder


def run_setup(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "--quiet", *arguments]
    environment = {**os.environ, "ENTPROP_BUILD": "auto", **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def build_pure_wheel(folder: Path, into: Path, **variables: str) -> tuple[str, Path]:
    """Return our line on why nothing is compiled, and the wheel; the last says what it holds."""
    run = run_setup(folder, "bdist_wheel", "--dist-dir", str(into), **variables)
    assert run.returncode == 0, run.stderr
    (wheel,) = into.glob("*.whl")
    why, holds = (line for line in run.stderr.splitlines() if line.startswith("entprop-fast:"))
    assert f"{wheel.name} holds pure Python, Triton kernels, no compiled kernels" in holds
    assert wheel.name.endswith("-py3-none-any.whl")
    return why, wheel


def files_below(folder: Path) -> set[str]:
    return {
        Path(parent, name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
    }


def test_kernels_are_a_symlink_in_the_checkout() -> None:
    link = ROOT / "entprop_fast" / "kernels"
    if not (ROOT / "kernels").exists():
        pytest.skip("a source archive holds the files themselves, once")
    assert link.is_symlink()
    assert link.resolve() == ROOT / "kernels"


def test_wheel_and_sdist_hold_every_file_of_the_package(source: Path, tmp_path: Path) -> None:
    expected = {name for name in files_below(source) if name.startswith("entprop_fast/")}
    expected.add("entprop_console.py")
    assert {"entprop_fast/py.typed", "entprop_fast/kernels/__init__.py"} <= expected

    said, wheel = build_pure_wheel(source, tmp_path / "direct", ENTPROP_BUILD="off")
    assert "pure Python" in said and "ENTPROP_BUILD=off" in said
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected

    assert run_setup(source, "sdist", "--dist-dir", str(tmp_path)).returncode == 0
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    carried = files_below(unpacked)
    assert expected <= carried
    assert {name for name in files_below(source) if name.startswith(("csrc/", "tests/"))} <= carried
    assert not any(name.startswith("kernels/") for name in carried)

    _, rebuilt = build_pure_wheel(unpacked, tmp_path / "rebuilt", ENTPROP_BUILD="off")
    assert set(zipfile.ZipFile(rebuilt).namelist()) == names


def test_without_a_compiler_it_trains_and_says_so_once(source: Path, tmp_path: Path) -> None:
    said, wheel = build_pure_wheel(source, tmp_path, CXX="/nonexistent")
    assert "pure Python" in said and "/nonexistent" in said
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    # An editable install would find this checkout's extension for the package that has none.
    code = (
        "import runpy, sys; "
        "sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in str(f)]; "
        "runpy.run_module('entprop_fast.train', run_name='__main__')"
    )
    flags = "--out run --device cpu --threads 1 --train-size 64 --epochs 1".split()
    run = subprocess.run(
        [sys.executable, "-c", code, *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    (line,) = [line for line in run.stdout.splitlines() if "reference backend" in line]
    assert "entprop_fast._C is not built" in line
    assert (tmp_path / "run" / "summary.json").exists()


def test_build_without_torch_is_pure_and_names_the_flag(source: Path, tmp_path: Path) -> None:
    # An isolated build environment, in short: importing torch fails.
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")\n")
    said, _ = build_pure_wheel(source, tmp_path / "dist", PYTHONPATH=str(tmp_path))
    assert "pip install --no-build-isolation" in said


def test_explicit_request_that_cannot_be_met_is_refused(source: Path, tmp_path: Path) -> None:
    asked = {"ENTPROP_BUILD": "cpu", "CXX": "/nonexistent"}
    run = run_setup(source, "bdist_wheel", "--dist-dir", str(tmp_path), **asked)
    assert run.returncode == 1
    assert "ENTPROP_BUILD=cpu" in run.stderr and "Traceback" not in run.stderr
    assert not list(tmp_path.glob("*.whl"))


TOOLS = {"clang-format", "hypothesis", "mkdocs", "mypy", "ninja", "pytest", "ruff", "setuptools"}
PIN_TORCH = {"timm", "torchaudio", "torchvision"}  # each release is for one release of torch


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def names_of(requirements: Iterable[str]) -> set[str]:
    """Return the packages that requirements name, those of this project's extras included."""
    found: set[str] = set()
    for line in requirements:
        name, extras = re.match(r"([\w.-]+)(?:\[(.*?)\])?", line).groups()  # type: ignore[union-attr]
        for extra in extras.split(",") if extras else ():
            found |= names_of(project()["optional-dependencies"][extra])
        if name != project()["name"]:
            found.add(name.lower().replace("_", "-"))
    return found


def test_extras_are_for_users() -> None:
    """FOUND N3: no linter, no test runner; what pins a torch is in `vision` alone."""
    extras = project()["optional-dependencies"]
    assert set(extras) == {"train", "vision", "export", "hub", "loggers", "emoji", "all"}
    for extra in extras:
        assert not {one for one in names_of(extras[extra]) if one.startswith(tuple(TOOLS))}
    pinning = {extra for extra in extras if names_of(extras[extra]) & PIN_TORCH}
    assert pinning == {"vision"}
    (torch_range,) = (one for one in project()["dependencies"] if one.startswith("torch"))
    assert re.fullmatch(r"torch>=[\d.]+", torch_range)


def test_the_development_set_up_pins_all_that_the_package_needs() -> None:
    """FOUND N3: so that `make` installs the package with --no-deps, and pip pulls nothing."""
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    extras = project()["optional-dependencies"].values()
    needed = names_of([*project()["dependencies"], *(one for extra in extras for one in extra)])
    assert needed - {"triton"} <= {name.lower().replace("_", "-") for name in pinned}
    assert next(iter(pinned)) == "torch"  # before any range can ask for another


def test_what_is_missing_for_images_is_installed_beside_this_torch() -> None:
    """FOUND N3: the message's command keeps the torch that is there."""
    with pytest.raises(ImportError, match=re.escape(f"[vision]' torch=={torch.__version__}")):
        require("nowhere_at_all", extra="vision", purpose="a test")
    with pytest.raises(ImportError, match=r"\[train\]'$"):
        require("nowhere_at_all", extra="train", purpose="a test")
