"""A command ends with its exit code and one line, whatever happens to its work or its output."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from entprop_fast.lab.cli import command_line, compare, evaluate, study, train
from entprop_fast.lab.experiments import runner
from entprop_fast.lab.experiments.comparison import comparison_files
from entprop_fast.lab.experiments.studies import STUDIES, form
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.errors import RunFailed, UsageError, one_line
from tests.lab.conftest import Args, Call

pytestmark = pytest.mark.usefixtures("without_pictures")


def raises(error: Exception) -> Any:
    """A command that ends so."""

    def ends() -> None:
        raise error

    return SimpleNamespace(main=lambda words: command_line.run_command(ends))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("a\nb \x1b[31m"), 2),
        (RunFailed("a\nb \x1b[31m"), 1),
        (OSError(errno.ENOSPC, "full"), 1),
        (MemoryError(), 1),
    ],
)
def test_what_ends_a_command(error: Exception, code: int, call: Call) -> None:
    """FOUND C8: in one place for every command, and on one line whatever is quoted."""
    assert "\x1b" not in call(raises(error), [], code)


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"):
        raises(RuntimeError("shape mismatch")).main([])
    assert one_line(ValueError("")) == "ValueError"


def test_a_full_disk_at_the_end(
    finished: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FOUND C8: the runs are there, and so is the way on; an evaluation's numbers were printed."""

    def full_disk(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.json")

    monkeypatch.setattr(runner, "do_runs", lambda *_: None)
    for module, name in (
        (comparison_files, "write_json"),
        (form, "write_atomically"),
        (evaluate, "write_json"),
    ):
        monkeypatch.setattr(module, name, full_disk)
    stub = replace(
        STUDIES["ratio"],
        measure=lambda *_: form.Table([{"k": 1}]),
        sentence=lambda _: "so",
        draw=lambda *_: None,
    )
    monkeypatch.setitem(STUDIES, "ratio", stub)
    scores = ["--corruptions", "none", "--out", str(tmp_path / "x.json")]
    assert "x.json" in call(evaluate, [str(finished), *scores], 1)
    for command, words in ((study, ["ratio"]), (compare, ["--methods", "vanilla"])):
        out = ["--seeds", "0", "--device", "cpu", "--out", str(tmp_path / words[0])]
        error = call(command, [*words, *out], 1)
        assert "x.json" in error and "the same command" in error


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


@pytest.mark.parametrize(("code", "exit_code"), [(errno.EPIPE, 0), (errno.ENOSPC, 1)])
def test_output_that_nobody_takes_ends_no_run(
    code: int,
    exit_code: int,
    tiny: Args,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """FOUND C6: ``| head``, a full disk and a closed terminal lose lines, not results."""
    raw = Broken(code)
    stdout = io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True)
    monkeypatch.setattr(sys, "stdout", stdout)
    assert train.main(tiny(tmp_path, "--epochs", "1", "--corruptions", "none")) == exit_code
    assert (tmp_path / "summary.json").is_file() and sys.stdout is stdout
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
