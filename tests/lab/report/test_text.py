"""FOUND C5: names that users chose, in tables, Markdown, pictures and on a terminal."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from entprop_fast.lab.cli import evaluate
from entprop_fast.lab.evaluation.evaluation_report import terminal_tables
from entprop_fast.lab.evaluation.evaluation_result import Evaluation, Row
from entprop_fast.lab.evaluation.evaluation_tables import markdown
from entprop_fast.lab.experiments.comparison import comparison_tables
from entprop_fast.lab.experiments.comparison.method_rows import method_rows
from entprop_fast.lab.experiments.studies import form
from entprop_fast.lab.report import text
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.tables import corruption_table, scores_table

NAMES = (
    "runs/[/]",
    "[bold]x[/bold]",
    "a|b",
    "two\nlines",
    "`code` <b> *star* [link](x)",
    "\x1b[31mred",
    "tab\tbed",
    "$x^$ $",
    "_hidden",
    "back\\slash",
    "\u202eright to left",
    "caf\udce9",
    ":smile:",
)


def evaluation(name: str) -> Evaluation:
    within: dict[str, Any] = {"low": 40.0, "high": 60.0, "interval": "Wilson"}
    row = Row(test="clean", source=name, accuracy=50.0, ece=1.0, images=10, **within)
    kinds = {name: [1.0, 2.0, 3.0, 4.0, 5.0]}
    return Evaluation(
        name=name, dataset=name, norms="main", sa=50.0, ra=3.0, rows=[row], corruptions=kinds
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_is_told_what_it_is_given(name: str) -> None:
    """FOUND C5: `[/]` was a MarkupError after all the work; nor is anything emoji."""
    shown = io.StringIO()
    console = Console(file=shown, width=300, force_terminal=False)
    console.print(
        *terminal_tables([evaluation(name)]),
        scores_table([{"method": name, "SA": 1.0, name: 2.0}]),
        corruption_table({name: [1.0, 2.0, 3.0, 4.0, 5.0]}),
        *comparison_tables.terminal_tables(method_rows({name: {}}, name), name),
    )
    assert shown.getvalue().count(text.plain(name)) >= 6
    Reporter(console).say(f"{name} is here")
    assert text.plain(name.split("\n")[-1]) + " is here" in shown.getvalue()
    assert "\x1b" not in shown.getvalue() and "\u202e" not in shown.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_markdown_tables_keep_their_columns(name: str) -> None:
    """FOUND C5: `a|b` was two cells."""
    pages = (
        markdown([evaluation(name).as_dict(), evaluation("other").as_dict()]),
        comparison_tables.markdown_table(method_rows({name: {}, "x": {}}, "x"), "x"),
        form.markdown([{"method": name, name: 1.0}, {"method": "x", name: 2.0}]),
    )
    for page in pages:
        page.encode()
        assert "\x1b" not in page
        for table in re.findall(r"(?:^\|.*\n?)+", page, flags=re.MULTILINE):
            bars = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(bars) == 1, table
    assert not re.search(r"(?<!\\)[`*]|(?<!\\)<b>", pages[1])


@pytest.mark.parametrize("name", NAMES)
def test_pictures_hold_any_name(name: str) -> None:
    """FOUND C5: two dollar signs began mathematics, an underscore hid a label."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], label=text.picture(name))
    axes.set_title(text.picture(name))
    assert len(axes.get_legend_handles_labels()[1]) == 1
    figure.savefig(io.BytesIO())


def test_numbers_and_plain_names_stay_as_they_are() -> None:
    assert text.markdown("entprop:score=random,k=0.5 < .0001 ± – gaussian_noise (x)") == (
        "entprop:score=random,k=0.5 < .0001 ± – gaussian_noise (x)"
    )
    assert text.plain("日本 é") == "日本 é"
    assert text.markdown("[/] a|b\n") == r"\[/\] a\|b\\n"


def test_a_run_whose_folder_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND C5: the case itself, with pictures."""
    monkeypatch.chdir(tmp_path)
    source = Path(__file__).parents[2] / "checkpoints" / "0.1.0"
    for name in ("[", "$a|b$"):
        shutil.copytree(source, Path("runs") / name / "]")
    runs = ["runs/[/]", "runs/$a|b$/]"]
    assert evaluate.main([*runs, "--device", "cpu", "--corruptions", "digits", "--out", "r"]) == 0
    assert "runs/[/]" in capsys.readouterr().out
    page = Path("r/evaluation.md").read_text()
    assert r"runs/\[/\]" in page and r"runs/$a\|b$/\]" in page
    assert Path("r/corruptions.png").is_file()
