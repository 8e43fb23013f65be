"""bench/digits.py: rows of a comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import digits, rows

# What of a compare.json the rows are made of.
COMPARISON = {
    "methods": [
        {"name": name, "runs": [{"seed": seed, "sa": 90.0, "folder": "f"} for seed in (0, 1)]}
        for name in ("vanilla", "entprop:score=random")
    ]
}


def test_bench_digits_compares_and_keeps_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def compare(flags: list[str]) -> int:
        asked.extend(flags)
        out = Path(flags[flags.index("--out") + 1])
        out.mkdir(parents=True)
        (out / "compare.json").write_text(json.dumps(COMPARISON))
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("entprop_fast.lab.cli.compare.main", compare)
    monkeypatch.setattr(rows, "ROWS", tmp_path / "rows")
    monkeypatch.setattr("sys.argv", ["bench.digits", "--epochs", "1"])
    assert digits.main() == 0
    assert [name for name in digits.LABELS if name not in asked] == [] and "--epochs" in asked
    kept = rows.read(digits.NAME)
    assert all(row["git"] for row in kept)
    assert [{n: row[n] for n in row if n not in rows.stamp()} for row in kept] == [
        {"variant": variant, "seed": seed, "sa": 90.0}
        for variant in ("vanilla", "EntProp, random rows")
        for seed in (0, 1)
    ]
