from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from entprop_fast.run import cli
from entprop_fast.run.progress import Reporter
from entprop_fast.run.signals import StopSignals

ROW = {"epoch": 2, "loss": 0.5, "aux_loss": 0.25, "sa": 90.0, "gap": 4.0, "images_per_second": 99.0}


def run(reporter: Reporter) -> None:
    with reporter.training(epochs=3, steps=6, done=2):
        reporter.steps_done(4, epoch=2, loss=0.5, images_per_second=99.0)
        reporter.epoch_done(ROW, seconds_left=7.0)
        reporter.say("[a] line")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_on_a_terminal_and_plain_lines_elsewhere(terminal: bool) -> None:
    text = io.StringIO()
    run(Reporter(Console(file=text, force_terminal=terminal, width=120)))
    printed = text.getvalue()
    assert "[a] line" in printed
    assert ("\x1b" in printed) == terminal
    if terminal:
        for words in ("epoch 2/3", "loss 0.500", "99 images/s", "left"):
            assert words in printed
    else:
        assert printed.splitlines()[0] == (
            "epoch 2/3  loss 0.500  aux loss 0.250  SA 90.0  gap 4.0  99 images/s  7 s left"
        )


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run(Reporter.quiet())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("encoding", "printed"), [("ascii", "a ? ?"), ("utf-8", "a \u2013 ?")])
def test_a_character_that_stdout_lacks_ends_no_command(
    encoding: str, printed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dash of a table, and a file's name that is not UTF-8."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stdout)

    def command(signals: StopSignals) -> None:
        print("a \u2013 \udcff")
        Reporter().say("a \u2013 \udcff")

    assert cli.run_command(command) == 0
    stdout.seek(0)
    assert stdout.read() == f"{printed}\n" * 2
