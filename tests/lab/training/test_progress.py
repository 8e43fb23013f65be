from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from itertools import groupby
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from entprop_fast.lab.data import ImageData
from entprop_fast.lab.evaluation import EvaluationOptions, evaluate_model
from entprop_fast.lab.report import progress
from entprop_fast.lab.report.observer import Measured
from entprop_fast.lab.report.progress import Reporter
from tests.lab.conftest import Args

ROW = {"epoch": 2, "loss": 0.5, "aux_loss": 0.25, "sa": 90.0, "gap": 4.0, "images_per_second": 99.0}


def run(reporter: Reporter) -> None:
    with reporter.training(epochs=3, steps=6, done=2):
        reporter.steps_done(4, epoch=2, loss=0.5, images_per_second=99.0)
        reporter.epoch_done(ROW, seconds_left=7.0)
        reporter.say("[a] line")


def lines_of(text: str) -> list[str]:
    """What stays on the screen: without control sequences and the rows that were drawn over."""
    screen: list[str] = [""]
    row = 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", text):
        if part == "\n":
            row += 1
            screen += [""] * (row + 1 - len(screen))
        elif up := re.fullmatch(r"\x1b\[(\d*)A", part):
            row = max(0, row - int(up[1] or 1))
        elif part == "\x1b[2K":
            screen[row] = ""
        elif part and part != "\r" and not part.startswith("\x1b"):
            screen[row] += part
    return [line for line in screen if line]


@pytest.mark.parametrize("terminal", [True, False])
def test_rows_on_a_terminal_and_the_same_lines_everywhere(terminal: bool) -> None:
    """FOUND N4: the line of an epoch stays, with SA, on a terminal and in a log."""
    text = io.StringIO()
    run(Reporter(Console(file=text, force_terminal=terminal, width=120)))
    printed = text.getvalue()
    assert ("\x1b" in printed) == terminal
    if terminal:
        for words in ("epoch 2/3", "loss 0.500", "99 images/s", "left"):
            assert words in printed
    assert lines_of(printed) == [
        "epoch 2/3  loss 0.500  aux loss 0.250  SA 90.0  gap 4.0  99 images/s  7 s left",
        "[a] line",
    ]


def test_an_epoch_with_held_out_images_says_their_hscore() -> None:
    text = io.StringIO()
    Reporter(Console(file=text, width=120)).epoch_done(
        ROW | {"validation_hscore": 81.25}, seconds_left=7.0
    )
    assert "SA 90.0  gap 4.0  held-out Hscore 81.2  99 images/s" in text.getvalue()


def test_an_epoch_without_an_auxiliary_pass_has_no_loss_of_it() -> None:
    text = io.StringIO()
    reporter = Reporter(Console(file=text, width=120))
    reporter.epoch_done(ROW | {"aux_loss": 0.0}, seconds_left=200.0)
    assert "aux" not in text.getvalue() and "3 min 20 s left" in text.getvalue()


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_nothing_is_known_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND N4: the bar began with "loss nan 0 images/s"."""
    text = io.StringIO()
    reporter = Reporter(Console(file=text, force_terminal=True, width=120))
    with reporter.training(epochs=3, steps=6, done=0):
        pass
    assert "training" in text.getvalue() and "nan" not in text.getvalue()


def test_a_long_task_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND N4, N5: an estimate after 5 s, a line a minute after that, none where others speak."""
    clock, text = Clock(monkeypatch), io.StringIO()
    reporter = Reporter(Console(file=text, width=120))
    with reporter.training(epochs=2, steps=1000, done=100):
        for done in range(101, 400):
            clock.now += 1
            reporter.steps_done(done, epoch=1, loss=0.5, images_per_second=10.0)
            if done == 250:
                reporter.say("something else")
    lines = text.getvalue().splitlines()
    assert lines[0] == "epoch 1/2  loss 0.500  10 images/s  (10 %, about 14 min 55 s left)"
    said = [line.partition("(")[2] for line in lines]
    assert [one.partition(" %")[0] for one in said] == ["10", "16", "22", "", "31", "37"]


def test_a_wait_that_is_long_is_announced_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND N4: large networks and files that are read were silent."""
    text = io.StringIO()
    reporter = Reporter(Console(file=text, width=120))
    with reporter.waiting("a short one"):
        pass
    monkeypatch.setattr(progress, "ANNOUNCED", 0.0)
    with reporter.waiting("a long one"):
        while "a long one ..." not in text.getvalue():
            time.sleep(0.01)
    assert text.getvalue().splitlines() == ["a long one ...", "a long one: took 0 s"]


def test_a_wait_that_fails_ends_its_row() -> None:
    text = io.StringIO()
    reporter = Reporter(Console(file=text, force_terminal=True, width=120))

    def drawing(expected: bool) -> bool:
        """Whether a thread draws rows; one that was stopped takes a moment to end."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            found = any(type(one).__name__ == "_RefreshThread" for one in threading.enumerate())
            if found == expected:
                break
            time.sleep(0.01)
        return found

    with pytest.raises(ValueError), reporter.measuring() as told:
        told(Measured("clean images", 1, 2))
        raise ValueError
    assert not drawing(False)
    with reporter.task("another"):
        assert drawing(True)
    assert not drawing(False)


def test_an_evaluation_tells_how_far_each_measurement_is() -> None:
    """FOUND N4: evaluations of up to a minute stood still."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    images = ImageData(
        "digits", *(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64)),
        torch.rand(7, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2, 0]), 3,
    )  # fmt: skip
    told: list[Measured] = []
    options = EvaluationOptions(pgd=1)
    evaluate_model(model, images, options, batch_size=4, progress=told.append)
    found = {what: list(group) for what, group in groupby(told, key=lambda one: one.what)}
    assert [one[:4].strip() for one in found] == ["clea", "corr", "PGD-"]
    for news in found.values():
        assert [one.done for one in news] == sorted(one.done for one in news)
        assert news[-1].done == news[-1].total
    assert found["corruptions"][0].detail.endswith("kind 1 of 10")
    assert len({one.detail for one in found["corruptions"]}) == 10


@pytest.mark.parametrize("terminal", [True, False])
def test_a_command_says_the_same_on_a_terminal_and_in_a_log(
    terminal: bool, tiny: Args, tmp_path: Path
) -> None:
    """FOUND N4: a row for each epoch with its SA, and one legend (N8), in a real terminal too."""
    command = [sys.executable, "-m", "entprop_fast.train", *tiny(tmp_path / "run")]
    printed = in_terminal(command) if terminal else subprocess.check_output(command, text=True)
    lines = lines_of(printed.replace("\r\n", "\n"))
    passing = re.compile(r".* (\.\.\.|left\))|.*: took .*")  # of waits that were long this time
    said = [line for line in lines if not passing.fullmatch(line)]
    assert said[0].startswith("entprop of wrn10_0.5 on digits, into ")
    legend_of_epochs = progress.EPOCH_LEGEND.splitlines()
    begin = said.index(legend_of_epochs[0])
    assert said[begin : begin + 2] == legend_of_epochs
    for number in (1, 2, 3):
        row = rf"epoch {number}/3  loss \S+  aux loss \S+  SA \S+  gap .* left"
        assert re.fullmatch(row, said[begin + 1 + number])
    legend = [line for line in said if all(f"{name}: " in line for name in ("SA", "RA", "Hscore"))]
    assert len(legend) == 1 and "cost: passes over the training images" in legend[0]
    assert ("\x1b" in printed) == terminal


def in_terminal(command: list[str]) -> str:
    """What a command writes to a terminal of 200 columns."""
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    environment = os.environ | {"TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        printed = b""
        while True:
            try:
                part = os.read(master, 1 << 16)
            except OSError:  # the other end is closed
                break
            printed += part
            if not part:
                break
    os.close(master)
    assert process.returncode == 0
    return printed.decode()


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run(Reporter.quiet())
    assert capsys.readouterr() == ("", "")
