"""FOUND C14: a clone with ``core.symlinks=false``: ``entprop_fast/kernels`` is a text file."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.children import ROOT, printed, run_python

# A torch that was built for CUDA, on a machine that need not have any.
ASK = """
import sys, warnings, torch
torch.version.cuda = sys.argv[1] or None
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    from entprop_fast.ops import backend
print(len([w for w in told if "symbolic links" in str(w.message)]))
print(backend.backends()["cuda"]["dual_batch_norm"], "cuda" in backend.KERNEL_DEVICES)
print(backend.why_reference("cuda"))
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as git leaves it without symbolic links."""
    if not (ROOT / "entprop_fast" / "kernels").is_symlink():
        pytest.skip("a source archive holds the files themselves")
    folder = tmp_path_factory.mktemp("clone")
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "kernels")
    for name, ignored in (("entprop_fast", unwanted), ("csrc", unwanted), ("kernels", None)):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "entprop_fast" / "kernels").write_text("../kernels")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.parametrize(("cuda", "warnings"), [("12.8", 1), ("", 0)])
def test_import_says_that_there_are_no_kernels(clone: Path, cuda: str, warnings: int) -> None:
    """Once where a GPU would want them; whoever asks hears it anywhere."""
    pytest.importorskip("triton")
    told = printed(run_python("-P", "-c", ASK, cuda, PYTHONPATH=str(clone))).splitlines()
    assert told[:2] == [str(warnings), "reference False"]
    assert "core.symlinks" in told[2] and "not installed" not in told[2]


def test_a_copy_in_place_of_the_link_has_them(clone: Path, tmp_path: Path) -> None:
    """The way out that the message names."""
    pytest.importorskip("triton")
    mended = Path(shutil.copytree(clone, tmp_path / "mended"))
    (mended / "entprop_fast" / "kernels").unlink()
    shutil.copytree(mended / "kernels", mended / "entprop_fast" / "kernels")
    told = printed(run_python("-P", "-c", ASK, "12.8", PYTHONPATH=str(mended))).splitlines()
    assert told[:2] == ["0", "triton True"]


def test_the_build_says_so_too(clone: Path) -> None:
    """A neighbour: the wheel of such a clone holds no kernels either."""
    command = [sys.executable, "setup.py", "--quiet", "--version"]
    ran = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True)
    assert "entprop-fast: without Triton kernels" in ran.stderr
