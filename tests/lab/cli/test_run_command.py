"""A command ends with its exit code and one line, whatever happens to its work or its output."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.cli import command_line, compare, evaluate, study, train
from entprop_fast.lab.experiments import runner
from entprop_fast.lab.experiments.comparison import comparison_files
from entprop_fast.lab.experiments.studies import STUDIES
from entprop_fast.lab.experiments.studies.form import Table
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.errors import RunFailed, UsageError, one_line
from tests.lab.conftest import Args

pytestmark = pytest.mark.usefixtures("without_pictures")


def the_line(capsys: pytest.CaptureFixture[str], word: str) -> str:
    error = capsys.readouterr().err
    assert error.startswith(f"{word}: ") and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("a\nb \x1b[31m"), 2),
        (RunFailed("a\nb \x1b[31m"), 1),
        (OSError(errno.ENOSPC, "full"), 1),
        (MemoryError(), 1),
    ],
)
def test_what_ends_a_command(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND C8: in one place for every command, and on one line whatever is quoted."""

    def ends() -> None:
        raise error

    assert command_line.run_command(ends) == code
    said = the_line(capsys, "error" if code == 2 else "failed")
    assert "\x1b" not in said


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    def ends() -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        command_line.run_command(ends)
    assert one_line(ValueError("")) == "ValueError"


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "compare.json")


def test_a_full_disk_at_the_end_of_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND C8: the runs are there, and so is the way on."""
    monkeypatch.setattr(runner, "do_runs", lambda *_: None)
    monkeypatch.setattr(comparison_files, "write_json", full_disk)
    small = ("--train-size", "40", "--batch-size", "20", "--epochs", "1", "--device", "cpu")
    words = ("--methods", "vanilla", "--seeds", "0", "--out", str(tmp_path / "c"))
    assert compare.main([*small, *words]) == 1
    error = the_line(capsys, "failed")
    assert "compare.json" in error and "the same command" in error


def test_a_full_disk_at_the_end_of_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND C8."""
    monkeypatch.setattr("entprop_fast.lab.experiments.studies.form.write_atomically", full_disk)
    one = STUDIES["ratio"]
    stub = type(one)(
        one.name, one.help, lambda *_: Table([{"k": 1}]), lambda _: "so", lambda *_: None
    )
    monkeypatch.setitem(STUDIES, "ratio", stub)
    assert study.main(["ratio", "--out", str(tmp_path / "s")]) == 1
    assert "the same command" in the_line(capsys, "failed")


def test_a_full_disk_at_the_end_of_an_evaluation(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """FOUND C8: the numbers were printed."""
    monkeypatch.setattr("entprop_fast.lab.cli.evaluate.write_json", full_disk)
    out = str(tmp_path / "x.json")
    plain = (str(finished), "--device", "cpu", "--corruptions", "none")
    assert evaluate.main([*plain, "--out", out]) == 1
    assert "No space left" in the_line(capsys, "failed")


def test_a_signal_during_the_last_words_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    """FOUND W13: else a shell's loop would go on after Ctrl-C."""
    assert command_line.run_command(lambda: os.kill(os.getpid(), signal.SIGINT)) == 130
    assert capsys.readouterr().err == "stopped by SIGINT: all was done\n"


class Broken(io.RawIOBase):
    """A file whose writes fail."""

    def __init__(self, code: int) -> None:
        self.code: int | None = code

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.code is None:
            return len(data)
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize(
    ("code", "exit_code"), [(errno.EPIPE, 0), (errno.ENOSPC, 1), (errno.EIO, 1)]
)
def test_output_that_nobody_takes_ends_no_run(
    code: int,
    exit_code: int,
    tiny: Args,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """FOUND C6: ``| head``, a full disk and a closed terminal lose lines, not results."""
    out = tmp_path / "run"
    raw = Broken(code)
    stdout = io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True)
    monkeypatch.setattr(sys, "stdout", stdout)
    assert train.main(tiny(out, "--epochs", "1")) == exit_code
    assert (out / "summary.json").is_file() and sys.stdout is stdout
    said = capsys.readouterr().err
    assert said.count("\n") == exit_code and ("stdout" in said) == bool(exit_code)
    raw.code = None  # its buffer is flushed when it is collected


@pytest.mark.parametrize(("encoding", "printed"), [("ascii", "a ? ?"), ("utf-8", "a \u2013 ?")])
def test_a_character_that_stdout_lacks_ends_no_command(
    encoding: str, printed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dash of a table, and a file's name that is not UTF-8."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stdout)

    def command() -> None:
        print("a \u2013 \udcff")
        Reporter().say("a \u2013 \udcff")

    assert command_line.run_command(command) == 0
    stdout.seek(0)
    assert stdout.read() == f"{printed}\n" * 2
