from __future__ import annotations

import json
from pathlib import Path

import pytest

from entprop_fast.lab.cli import study
from entprop_fast.lab.experiments.studies import STUDIES, Options
from entprop_fast.lab.experiments.studies.form import cell, markdown, number

from .conftest import KINDS

PNG = b"\x89PNG\r\n"


def test_cells() -> None:
    values = (81.28, 5.254, 0.0654, -1.94, 7, "k=1", None)
    assert [cell(value) for value in values] == ["81.3", "5.25", "0.065", "-1.94", "7", "k=1", "–"]
    table = "| a    | b   |\n| ---- | --- |\n| 1    | –   |\n| 10.5 | x   |"
    assert markdown([{"a": 1, "b": None}, {"a": 10.5, "b": "x"}]) == table
    with pytest.raises(TypeError, match="b = None"):
        number({"b": None}, "b")


def test_the_command_writes_and_prints(
    tiny: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "command"
    small = "--train-size 60 --batch-size 20 --epochs 1 --seeds 0 1 --workers 1 --device cpu"
    assert study.main(["ood", *small.split(), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "batches of 20" in printed  # where the recipe's, of 64, leave none
    table = json.loads((out / "table.json").read_text())
    page = (out / "table.md").read_text()
    assert table["sentence"] in page and table["sentence"] in printed
    assert table["setting"]["seeds"] == [0, 1] and table["setting"]["batch_size"] == 20
    assert len(table["rows"]) == 5 + len(KINDS)
    assert [line for line in page.splitlines() if line.startswith("| k-NN ")]
    assert (out / "picture.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("words", ["{} --help", "--quick {} -h"])
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_has_a_help_of_its_own(
    name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        study.main(words.format(name).split())
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert stop.value.code == 0 and f"entprop_fast.study {name} [-h]" in said
    assert STUDIES[name].help in said and f"Compared: {STUDIES[name].compared}." in said
    assert not any(one.help in said for one in STUDIES.values() if one.name != name)
    assert "--seeds" in said and ("--archs" in said) == (name == "score") != ("--model" in said)
    page = Path("docs/studies.md").read_text().replace("`", "")
    assert f"| {name} | " in page and f" | {STUDIES[name].compared} |" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("scores", "score"),
        ("score --seeds 1 1", "--seeds"),
        ("score --workers 0", "--workers"),
        ("score --archs wrn10_1 wrn10_1", "--archs"),
        ("score --archs wrn1", "wrn1"),
        ("ratio --archs wrn10_1", "--archs"),
        ("score --recipe digit", "digits"),
        ("score --train-size 5000", "--train-size = 5000"),
        ("ratio --train-size 60", "batch_size = 64 with drop_last leaves no batch of 60 images"),
        ("ratio --batch-size 201", "--batch-size = 201 with drop_last leaves no batch of 200"),
        ("ratio --batch-size 0", "--batch-size"),
        ("components --quick --recipe cifar100 --data-dir tests", "is not in tests: fetch"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    name, *more = arguments.split()
    assert study.main([name, "--workers", "1", *more, "--out", str(out), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert not out.exists()
    assert message in error and error.count("\n") == 1
