"""Check that pages lead somewhere, name what exists, and show code and commands that work."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.cli.commands import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FENCE = re.compile(r"^```.*?^```", re.M | re.S)
by_path = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: str) -> set[str]:
    """Return GitHub's names of a page's headings, which are the site's too."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page), re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@by_path
def test_links_within_the_repository(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link
        # The site holds docs/ alone.
        assert DOCS not in page.parents or DOCS in target.parents, link


@by_path
def test_files_and_objects_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    files = r"`((?:entprop_fast|kernels|csrc|bench|tests|docs)/[\w/.]+)`"
    assert [name for name in re.findall(files, text) if not (ROOT / name).exists()] == []
    names = re.findall(r"^::: ([\w.]+)$|`(entprop_fast\.(?!json)[a-z][\w.]*)[`(]", text, re.M)
    assert [name for name in map("".join, names) if not found(name)] == []


def found(name: str) -> bool:
    """Return whether a dotted name is a module's, or of something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:count]))
            for part in parts[count:]:
                value = getattr(value, part)
        except (ImportError, AttributeError):
            continue
        return True
    return False


def test_every_page_is_in_the_site_s_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r"- (?:[^:\n]+: )?(\S+\.md)$", nav, re.M)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_command_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "commands.md").read_text()
    assert re.findall(r"^## (\w+)$", page, re.M) == list(COMMANDS)
    assert set(re.findall(r"^<!-- help: (\w+) -->$", page, re.M)) == COMMANDS.keys() - {
        "env_report"
    }


def test_the_readme_fits_on_a_page_and_begins_with_a_command() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 80
    assert lines.index("```sh") < 20


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the page, the module and the words of every command that a page's shell blocks show."""
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S):
            for line in block.splitlines():
                if line.startswith(("python -m entprop_fast.", "entprop ")):
                    first, *words = shlex.split(line, comments=True)
                    if first == "entprop":
                        words = ["-m", f"entprop_fast.{words[0].replace('-', '_')}", *words[1:]]
                    yield str(page.relative_to(ROOT)), words[1:]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules after import:RuntimeWarning")
def test_commands_have_the_flags_that_pages_show(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = list(commands())
    assert len(shown) > 20
    flags = {}
    for name in {words[0] for _, words in shown}:
        monkeypatch.setattr("sys.argv", [name, "--help"])
        with contextlib.suppress(SystemExit):
            runpy.run_module(name, run_name="__main__")
        flags[name] = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
    for page, words in shown:
        unknown = {word for word in words if word.startswith("--")} - flags[words[0]]
        assert not unknown, f"{page}: {shlex.join(words)}"


def example(page: str) -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    return str(code)


def run_without(script: str, *modules: str) -> str:
    """Return what a new process prints in which these libraries are missing, and our shims too."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", hidden + script]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


TRAINED = """
assert result.loss.isfinite()
assert not any("aux_bn" in key for key in model.state_dict())
"""


def test_examples_run_as_printed() -> None:
    """FOUND N2: verbatim, with what `pip install '.[all]'` brings, and without vision's parts."""
    code = example("README.md") + TRAINED + example("docs/tutorial/own_model.md") + TRAINED
    printed = run_without(code, "timm", "torchvision")
    assert "| model | main | corrupted, mean of 15 x 5 |" in printed


def test_a_report_of_the_library_needs_no_extra() -> None:
    """FOUND N2: its neighbour; torch and numpy alone, where no corruption is asked for."""
    code = example("docs/tutorial/own_model.md").replace("resnet18", "wrn10_0.5")
    code = code.replace(
        "loader[0])", 'loader[0], entprop_fast.EvaluationOptions(corruptions="none"))'
    )
    missing = "rich scipy matplotlib sklearn tyro timm torchvision PIL".split()
    assert "| model | main | clean |" in run_without(code, *missing)
