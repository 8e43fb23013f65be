"""bench/command.py: names that are known, and rows that are there once they are measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import captured_run, command, ragged_memory, rows
from bench.roofline import __main__ as roofline
from bench.step import batches, profile

MAINS: dict[str, Callable[[list[str]], None]] = {
    "bench.captured_run": captured_run.main,
    "bench.ragged_memory": ragged_memory.main,
    "bench.roofline": roofline.main,
    "bench.step.batches": batches.main,
    "bench.step.profile": profile.main,
}


@pytest.mark.parametrize("module", MAINS)
def test_every_command_refuses_an_unknown_name_alike(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        MAINS[module](["lenet"])
    said = capsys.readouterr().err
    assert refused.value.code == 2
    assert said.startswith(f"usage: python -m {module} ") and "lenet: expected some of " in said


def test_all_that_is_usual_is_taken_where_nothing_is_named() -> None:
    known = {"a": 1, "b": 2, "c": 3}
    every, usual = (command.parser_of("x", "Do.", "NAME", known, u) for u in (None, ["c"]))
    assert every.parse_args([]).names == ["a", "b", "c"]
    assert usual.parse_args([]).names == ["c"]
    assert usual.parse_args(["b", "a"]).names == ["b", "a"]


def test_a_command_that_is_cut_off_leaves_every_row_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rows, "PARTS", tmp_path / "parts")
    monkeypatch.setattr(rows, "_measured", {})
    monkeypatch.setenv(rows.JOURNAL, str(tmp_path / "journal"))

    def there(path: Path) -> list[int]:
        return [json.loads(line)["a"] for line in path.read_text().splitlines()]

    def several() -> Iterator[rows.Row]:
        yield {"a": 2}
        assert there(rows.part("some")) == there(tmp_path / "journal") == [1, 2]
        yield {"a": 3}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command.keep_as_measured("some", iter([([{"a": 1}], "one"), (several(), "never said")]))
    assert there(rows.part("some")) == there(tmp_path / "journal") == [1, 2, 3]
    assert capsys.readouterr().out == "one\n"
