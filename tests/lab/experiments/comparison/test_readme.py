from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import digits, report, rows

ROOT = report.ROOT


def test_rows_of_a_comparison(finished: Path) -> None:
    measured = digits.labelled(json.loads((finished / "compare.json").read_text()))
    assert [(row["variant"], row["seed"]) for row in measured] == [
        ("vanilla", 0),
        ("vanilla", 1),
        ("EntProp, random rows", 0),
        ("EntProp, random rows", 1),
    ]
    assert all("corruptions" in row and "folder" not in row for row in measured)


def test_the_readme_holds_what_the_committed_rows_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / report.IMAGES).mkdir(parents=True)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    section = report.digits_section()
    assert section in (ROOT / "README.md").read_text()
    measured = rows.read(digits.NAME)
    measured[0]["hscore"] += 1
    monkeypatch.setattr(rows, "read", lambda name: measured)
    assert report.digits_section() != section


def test_bench_digits_compares_and_keeps_the_rows(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def compare(flags: list[str]) -> int:
        asked.extend(flags)
        out = Path(flags[flags.index("--out") + 1])
        out.mkdir(parents=True)
        (out / "compare.json").write_bytes((finished / "compare.json").read_bytes())
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("entprop_fast.compare.main", compare)
    monkeypatch.setattr(rows, "ROWS", tmp_path / "rows")
    monkeypatch.setattr("sys.argv", ["bench.digits", "--epochs", "1"])
    assert digits.main() == 0
    assert [name for name in digits.LABELS if name not in asked] == [] and "--epochs" in asked
    kept = rows.read(digits.NAME)
    assert len(kept) == 4 and all(row["git"] for row in kept)
