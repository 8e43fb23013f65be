"""Runs in processes: where, how far they are, what a killed one leaves."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from multiprocessing import Pipe, active_children
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from entprop_fast.lab.experiments.one_run import Outcome, Run
from entprop_fast.lab.experiments.run_progress import ProgressRows, State, StateReporter
from entprop_fast.lab.experiments.shared_runs import SharedRuns
from entprop_fast.lab.experiments.workers import do_runs, places
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.recipe import resolve


def run_in(folder: Path, epochs: int) -> Run:
    """A small run."""
    small: dict[str, Any] = {"train_size": 40, "batch_size": 20, "threads": 1, "epochs": epochs}
    config = resolve("digits", method="vanilla", out=str(folder), corruptions="none", **small)
    return Run("vanilla", 0, config)


def test_a_killed_process_fails_its_run_alone_and_all_say_how_far_they_are(tmp_path: Path) -> None:
    """FOUND N4: a run's begin, its phases, and its outcome last."""
    runs = [run_in(tmp_path / "long", 5000), run_in(tmp_path / "short", 1)]

    def kill() -> None:
        while not (runs[0].folder / "checkpoint.pt").exists():
            time.sleep(0.01)
        (child,) = active_children()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)

    heard: list[tuple[int, State | Outcome]] = []
    killer = threading.Thread(target=kill)
    killer.start()
    do_runs(SharedRuns(runs), ["cpu"], lambda index, news: heard.append((index, news)))
    killer.join()
    of_each = [[news for index, news in heard if index == one] for one in (0, 1)]
    killed, other = (news[-1] for news in of_each)
    assert isinstance(killed, Outcome) and isinstance(other, Outcome)
    assert "exit code -9" in (killed.error or "")
    assert other.record is not None and other.record["epochs"] == 1
    assert not active_children()
    *states, _ = of_each[1]
    phases = [state.what for state in states if isinstance(state, State)]
    assert len(phases) == len(states) and phases[0] == "started"
    places = [phases.index(one) for one in ("reading data set digits", "training", "evaluating")]
    assert places == sorted(places)
    assert any(state.total == 2 for state in states if isinstance(state, State))  # steps


@pytest.mark.parametrize("terminal", [True, False])
def test_every_run_has_a_row_with_its_state(terminal: bool) -> None:
    """FOUND N4: on a terminal; its begin is a line everywhere."""
    text = io.StringIO()
    reporter = Reporter(Console(file=text, force_terminal=terminal, width=120))
    with ProgressRows(reporter, ["a, seed 0", "b, seed 1"]) as rows:
        rows.show(0, State("started", 0, None))
        rows.show(1, State("started", 0, None))
        rows.show(0, State("epoch 1/3  loss 0.5", 10, 30))
        rows.show(0, State("corruptions", 5, 100))
        if reporter._rows is not None:
            reporter._rows.refresh()
        rows.end(0)
        assert reporter._running == 1
    assert reporter._running == 0
    printed = text.getvalue()
    assert "started a, seed 0" in printed and "started b, seed 1" in printed
    assert ("a, seed 0  corruptions" in printed) == terminal


def test_a_part_of_a_task_is_not_sent_as_the_whole() -> None:
    ours, theirs = Pipe()
    reporter = StateReporter(theirs.send)
    with reporter.task("training", 10), reporter.task("accuracy of the epoch", 500) as part:
        part.reach(400)
    with reporter.measuring(), reporter.task("clean images", 7):
        pass
    sent = []
    while ours.poll():
        sent.append(ours.recv())
    assert [(one.what, one.total) for one in sent] == [
        ("training", 10),
        ("evaluating", None),
        ("clean images", 7),
    ]
    ours.close()
    with reporter.task("training", 10):  # nobody listens any more: the run goes on
        pass


@pytest.mark.parametrize(
    ("gpus", "device", "jobs", "threads", "expected"),
    [
        (0, "auto", None, 1, ["cpu"] * 4),
        (0, "cpu", None, 3, ["cpu"]),
        (0, "cpu", 2, 1, ["cpu"] * 2),
        (2, "auto", None, 1, ["cuda:0", "cuda:1"]),
        (2, "auto", 3, 1, ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda:1", None, 1, ["cuda:1"]),
        (2, "cpu", None, 1, ["cpu"] * 4),
    ],
)
def test_places(
    gpus: int,
    device: str,
    jobs: int | None,
    threads: int,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4))
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert places(device, jobs, threads) == expected
