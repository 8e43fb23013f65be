"""What the pages show: the README's example runs, and links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def anchors(page: str) -> set[str]:
    """GitHub's names of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def readme_example() -> str:
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    return str(example)


def run_without(script: str, *modules: str) -> subprocess.CompletedProcess[str]:
    """A new process in which these libraries are not installed, nor any shim of ours is loaded."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", hidden + script]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_the_readme_s_example_runs_as_printed() -> None:
    """FOUND N2: verbatim, with what `pip install '.[all]'` brings, and without vision's parts."""
    check = """
assert result.loss.isfinite()
assert not any("aux_bn" in key for key in model.state_dict())
"""
    run = run_without(readme_example() + check, "timm", "torchvision")
    assert run.returncode == 0, run.stderr
    assert "| model | main | corrupted, mean of 15 x 5 |" in run.stdout


def test_a_report_of_the_library_needs_no_extra() -> None:
    """FOUND N2: its neighbour; torch and numpy alone, where no corruption is asked for."""
    example = readme_example().replace(
        "loader[0])", 'loader[0], entprop_fast.EvaluationOptions(corruptions="none"))'
    )
    run = run_without(example, *"rich scipy matplotlib sklearn tyro timm torchvision PIL".split())
    assert run.returncode == 0, run.stderr
    assert "| model | main | clean |" in run.stdout
