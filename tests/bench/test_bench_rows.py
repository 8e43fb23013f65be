"""bench/rows.py and bench/clocks.py: what a GPU's rows say, and the journal of a campaign."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import clocks, rows


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rows, "ROWS", tmp_path / "rows")
    monkeypatch.setattr(rows, "PARTS", tmp_path / "parts")
    monkeypatch.setattr(rows, "_measured", {})
    monkeypatch.delenv(rows.JOURNAL, raising=False)
    return tmp_path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_of_a_gpu_alone_say_its_clocks_of_that_moment(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(["SM 1980 MHz", "SM 345 MHz", "SM 1 MHz"])
    monkeypatch.setattr(clocks, "read", lambda: next(now))
    for name in ("norm_cuda", "norm_cpu"):
        rows.begin(name)
        rows.add(name, [{"a": 1}])
    rows.add("norm_cuda", [{"a": 2}])
    found = read(rows.part("norm_cuda"))
    assert [row["clocks"] for row in found] == ["SM 1980 MHz", "SM 345 MHz"]
    assert "clocks" not in read(rows.part("norm_cpu"))[0]
    assert found[0] == {"a": 1} | rows.stamp() | {"clocks": "SM 1980 MHz"}
    # Written anew, beside another one, and kept as a whole: they are what they were.
    rows.begin("norm_cuda")
    rows.add("norm_cuda", [{"a": 1}, {"a": 2}])
    assert read(rows.part("norm_cuda")) == found
    rows.keep("norm_cuda", [{"a": 1}, {"a": 2}], whole=True)
    assert rows.read("norm_cuda") == found
    rows.keep("norm_cuda", [{"a": 3}, {"a": 2}], whole=True)
    assert [row["clocks"] for row in rows.read("norm_cuda")] == ["SM 1 MHz", "SM 345 MHz"]


def test_every_row_goes_into_the_journal_of_a_campaign(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = folders / "rows.jsonl"
    monkeypatch.setenv(rows.JOURNAL, str(journal))
    for name, row in (("one", 1), ("other", 1), ("one", 2)):
        rows.begin(name)  # of another piece of the table: takes nothing out of it
        rows.add(name, [{"a": row}])
    rows.begin("one")
    rows.add("one", [{"a": 1}, {"a": 2}, {"a": 3}])  # what is known by now, as a whole
    assert [(row[rows.TABLE], row["a"]) for row in read(journal)] == [
        *(("one", 1), ("other", 1), ("one", 2), ("one", 3))
    ]
    assert [row["a"] for row in read(rows.part("one"))] == [1, 2, 3]
    assert all(line.startswith('{"table": "') for line in journal.read_text().splitlines())


def test_an_origin_names_clocks_where_a_row_has_them() -> None:
    where = {"machine": "m", "versions": "v", "git": "g"}
    assert rows.origin(where) == "m; v; g"
    assert rows.origin(where | {"clocks": "SM 5 MHz"}) == "m; SM 5 MHz; v; g"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1980, 3201, 700.00\n", "SM 1980 MHz, memory 3201 MHz, power limit 700 W"),
        ("210, 405, [N/A]\n", "SM 210 MHz, memory 405 MHz"),
        ("[N/A], [N/A], [Not Supported]\n", clocks.UNKNOWN),
        ("", clocks.UNKNOWN),
    ],
)
def test_clocks_in_words(line: str, words: str) -> None:
    assert clocks.said(line) == words


def test_the_driver_is_asked_for_the_device_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        asked.append(command)
        return SimpleNamespace(stdout="1980, 3201, 700.00\n")

    monkeypatch.setattr(subprocess, "run", run)
    device = SimpleNamespace(uuid="1b-2c")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    assert clocks.read() == "SM 1980 MHz, memory 3201 MHz, power limit 700 W"
    assert asked[0][:2] == ["nvidia-smi", "--id=GPU-1b-2c"]


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("nvidia-smi"),
        subprocess.CalledProcessError(9, "nvidia-smi"),
        subprocess.TimeoutExpired("nvidia-smi", 10),
    ],
    ids=["not there", "fails", "hangs"],
)
def test_clocks_that_nobody_tells_are_unknown(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*given: Any, **options: Any) -> None:
        raise error

    device = SimpleNamespace(uuid="1b-2c")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    monkeypatch.setattr(subprocess, "run", run)
    assert clocks.read() == "clocks unknown"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_clocks_are_unknown() -> None:
    assert clocks.read() == clocks.UNKNOWN
