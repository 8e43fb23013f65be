"""bench/studies.py: tables of studies, kept and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import rows, studies
from entprop_fast.lab.experiments.studies.form import TABLE_JSON

PAGE = Path("docs/studies.md")


def table(hscore: float) -> list[rows.Row]:
    """Plain training and EntProp, as `adds` and `affine` have them."""
    scores = {"SA": 80.0, "RA": 60.0, "deviation": 0.5, "cost": 20.0}
    nothing = dict.fromkeys(("difference", "low", "high", "p", "pairs"))
    known = {"difference": hscore - 60, "low": 1.0, "high": 5.0, "p": 0.01, "pairs": 3}
    first = {"variant": "vanilla", **scores, "Hscore": 60.0, **nothing}
    return [first, {"variant": "entprop", **scores, "Hscore": hscore, **known}]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of studies that were run, each of which fails where `fails` is in it."""
    found: list[list[str]] = []

    def run(flags: list[str]) -> int:
        found.append(flags)
        if "fails" in flags:
            return 3
        out = Path(flags[flags.index("--out") + 1])
        out.mkdir(parents=True)
        setting = {"train_size": 9, "epochs": 2, "seeds": [0], "corruption_source": "made"}
        record = {"study": flags[0], "setting": setting, "sentence": "old", "rows": table(63.0)}
        (out / TABLE_JSON).write_text(json.dumps(record))
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("entprop_fast.lab.cli.study.main", run)
    monkeypatch.setattr(rows, "ROWS", tmp_path / "rows")
    return found


def test_tables_are_kept_and_not_measured_again(
    asked: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert studies.main(["--workers", "1"]) == 0
    assert [flags[0] for flags in asked] == list(studies.CHOSEN)
    assert all(flags[1:-2] == [*studies.FLAGS, "--workers", "1"] for flags in asked)
    kept = rows.read(studies.NAME)
    assert [row["rows"] for row in kept] == [table(63.0)] * 3 and all(row["git"] for row in kept)
    capsys.readouterr()
    assert studies.main([]) == 0 and len(asked) == 3
    assert capsys.readouterr().out.count("kept already") == 3


def test_a_study_that_fails_ends_it(asked: list[list[str]]) -> None:
    assert studies.main(["fails"]) == 3
    assert len(asked) == 1 and not rows.there(studies.NAME)


def test_what_is_shown(asked: list[list[str]], tmp_path: Path) -> None:
    """Tables and pictures of what was measured; the others are said to be unmeasured."""
    with pytest.raises(FileNotFoundError):
        studies.section(PAGE)
    studies.main([])
    first, *others = rows.read(studies.NAME)
    rows.replace(studies.NAME, [first])
    adds, *unmeasured = studies.section(PAGE).split("### ")[1:]
    assert "| entprop " in adds and "higher: entprop +3.0" in adds and "old" not in adds
    assert "`--train-size 9 --epochs 2`, 1 seeds" in adds and "images/study_adds.png" in adds
    assert all("Not measured yet" in one for one in unmeasured) and len(unmeasured) == len(others)
    for path, draw in studies.PICTURES.items():
        picture = tmp_path / path.name
        if path == studies.picture_of("adds"):
            draw(picture)
            assert picture.read_bytes().startswith(b"\x89PNG")
        else:
            with pytest.raises(FileNotFoundError):
                draw(picture)
