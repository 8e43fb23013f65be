"""Check that targets say how long they take before they start (FOUND N5), and what they install."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def commands(*targets: str, folder: Path) -> list[str]:
    """Return what make would run for them in an environment that is not there yet."""
    command = ["make", "--dry-run", "--always-make", f"VENV={folder / 'venv'}", *targets]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.replace("\\\n", " ").splitlines()


def test_every_stage_of_make_train_says_how_long_it_takes(tmp_path: Path) -> None:
    lines = commands("train", folder=tmp_path)
    said = [number for number, line in enumerate(lines) if line.startswith('echo "== ')]
    assert len(said) == 3 and all(re.search(r"\d+ minutes?\b", lines[number]) for number in said)
    installing = [number for number, line in enumerate(lines) if "pip install" in line]
    assert installing and said[0] < installing[0]
    assert not [lines[n] for n in installing if re.search(r"install .*--quiet", lines[n])]
    (compiling,) = (n for n, line in enumerate(lines) if "--editable" in line)
    (training,) = (n for n, line in enumerate(lines) if "entprop_fast.train" in line)
    assert (compiling - 1, training - 1) == (said[1], said[2])


@pytest.mark.parametrize(
    "target",
    [
        *("test", "wheel", "wheel-test", "compare", "bench", "bench-recipes", "bench-gpu", "zoo"),
        "docs",
    ],
)
def test_long_targets_say_how_long_they_take(target: str, tmp_path: Path) -> None:
    setup = commands("setup", folder=tmp_path)
    own = [line for line in commands(target, folder=tmp_path) if line not in setup]
    assert re.match(r'echo "== .*\d+ minutes?\b', own[0]), own[0]


def test_installing_pulls_no_other_torch(tmp_path: Path) -> None:
    """FOUND N3: after the pins, pip installs the package alone."""
    (line,) = (one for one in commands("setup", folder=tmp_path) if "--editable" in one)
    assert "--no-deps" in line and "[" not in line
