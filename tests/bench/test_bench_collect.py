"""bench/collect.py: whole units of a campaign's rows become committed rows, half ones do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import captured_run, collect, rows
from bench.step import table as step_table
from tests.bench.conftest import WHERE

STEPS = step_table.name_of("cuda")


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of bench/rows."""
    monkeypatch.setattr(rows, "ROWS", tmp_path / "rows")
    return tmp_path / "rows"


def every(name: str, **more: Any) -> list[rows.Row]:
    """Make all rows that a table wants."""
    table = collect.TABLES[name]
    return [dict(zip(table.by, key, strict=False)) | WHERE | more for key in table.wanted()]


def journal(folder: Path, found: dict[str, list[rows.Row]], tail: str = "") -> Path:
    """Write what a campaign would have."""
    lines = [json.dumps({rows.TABLE: name} | row) for name in found for row in found[name]]
    (folder / collect.JOURNAL).write_text("\n".join(lines) + "\n" + tail)
    return folder


@pytest.mark.parametrize("name", collect.TABLES)
def test_a_table_that_is_whole_is_kept(name: str, tmp_path: Path, committed: Path) -> None:
    measured = every(name, seconds=1.5)
    assert collect.main([str(journal(tmp_path, {name: measured}))]) == 0
    kept = rows.read(name)
    assert len(kept) == len(measured) and {row["seconds"] for row in kept} == {1.5}
    assert all(rows.TABLE not in row for row in kept)


@pytest.mark.parametrize("name", collect.TABLES)
def test_a_half_measured_one_is_refused(
    name: str, tmp_path: Path, committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = every(name)
    lost = collect.TABLES[name].key(measured.pop())[: collect.TABLES[name].unit]
    assert collect.main([str(journal(tmp_path, {name: measured}))]) == 1
    assert f"{name}: half measured, not kept: " in capsys.readouterr().out
    key = collect.TABLES[name].key
    kept = rows.read(name) if rows.there(name) else []
    assert [row for row in kept if key(row)[: len(lost)] == lost] == []
    assert committed.exists() == (len(lost) > 0)  # other units of the table are whole


def test_the_last_of_two_measurements_counts(tmp_path: Path, committed: Path) -> None:
    name = captured_run.NAME
    found = {name: [*every(name, loss=[9.0]), *every(name, loss=[1.0])]}
    collect.main([str(journal(tmp_path, found, tail='{"table": "captured_run_cu'))])
    assert [row["loss"] for row in rows.read(name)] == [[1.0]] * len(every(name))


def test_other_units_stay_but_not_of_another_machine(
    tmp_path: Path, committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = captured_run.NAME
    digits = [row for row in every(name) if row["data_set"] == "digits"]
    rows.replace(name, every(name, git="older", loss=[7.0]))
    collect.main([str(journal(tmp_path, {name: digits}))])
    kept = {(row["data_set"], row["git"]) for row in rows.read(name)}
    assert kept == {("digits", WHERE["git"]), ("fashion_mnist", "older")}
    elsewhere = [row | {"machine": "another"} for row in digits]
    collect.main([str(journal(tmp_path, {name: elsewhere}))])
    assert {row["machine"] for row in rows.read(name)} == {"another"}
    assert "3 rows of another machine or other versions make way" in capsys.readouterr().out


def test_of_a_journal_the_last_machine_counts(
    tmp_path: Path, committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A campaign that goes on after torch was updated compares nothing across."""
    name = captured_run.NAME
    digits, fashion = every(name)[:3], every(name)[3:]
    older = [row | {"versions": "older"} for row in digits]
    assert collect.main([str(journal(tmp_path, {name: [*older, *fashion]}))]) == 1
    assert {row["data_set"] for row in rows.read(name)} == {"fashion_mnist"}
    assert f"{name}: 3 rows of another machine or other versions, not" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line", ["3", "[1]", '{"a": 1}', '{"table": ["x"]}', '{"table": "norm_cuda"}', "\udcff", '{"ta']
)
def test_a_line_that_is_no_row_costs_no_other(
    line: str, tmp_path: Path, committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = captured_run.NAME
    place = journal(tmp_path, {name: every(name)}) / collect.JOURNAL
    broken = f"{line}\n".encode(errors="surrogateescape")
    place.write_bytes(broken + place.read_bytes())
    assert collect.main([str(tmp_path)]) == 0 and rows.read(name) == every(name)
    assert "left out 1 lines that are no rows" in capsys.readouterr().out
    place.write_bytes(broken)
    assert collect.main([str(tmp_path)]) == 1
    assert "nothing was measured: no row in" in capsys.readouterr().out


def test_what_is_no_table_is_said(
    tmp_path: Path, committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect.main([str(journal(tmp_path, {"captured_run_cpu": [{"loss": 1.0}]}))]) == 0
    assert "captured_run_cpu: no table" in capsys.readouterr().out
    (tmp_path / collect.JOURNAL).unlink()
    assert collect.main([str(tmp_path)]) == 1 and not committed.exists()


def test_every_committed_row_of_a_gpu_has_a_command() -> None:
    found = {path.stem for path in rows.ROWS.glob("*.jsonl") if path.stem.endswith(rows.GPU)}
    assert found <= set(collect.TABLES)
    assert all(table.command for table in collect.TABLES.values())
