"""How far the runs are: FOUND N4, a comparison was silent while its runs trained."""

from __future__ import annotations

import io
from multiprocessing import Pipe
from pathlib import Path

import pytest
from rich.console import Console

from entprop_fast.lab.experiments.watching import State, Teller, Watch
from entprop_fast.lab.experiments.workers import Outcome, run_all
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.recipe import resolve


def test_a_run_in_another_process_tells_how_far_it_is(tmp_path: Path) -> None:
    """FOUND N4: its begin, the phases, and its outcome last."""
    config = resolve(
        "digits", method="vanilla", epochs=2, train_size=64, threads=1, out=str(tmp_path / "run")
    )
    heard: list[tuple[int, State | Outcome]] = []
    run_all([config], ["cpu"], lambda index, news: heard.append((index, news)))
    *states, outcome = (news for _, news in heard)
    assert {index for index, _ in heard} == {0}
    assert isinstance(outcome, Outcome) and outcome.summary is not None
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
    ended: list[tuple[int, str]] = []

    def done(index: int, outcome: str) -> None:
        ended.append((index, outcome))

    with Watch(reporter, ["a, seed 0", "b, seed 1"], done) as watch:
        watch(0, State("started", 0, None))
        watch(1, State("started", 0, None))
        watch(0, State("epoch 1/3  loss 0.5", 10, 30))
        watch(0, State("corruptions", 5, 100))
        if reporter._rows is not None:
            reporter._rows.refresh()
        watch(0, "over")
        watch(1, "too")
    printed = text.getvalue()
    assert ended == [(0, "over"), (1, "too")]
    assert "started a, seed 0" in printed and "started b, seed 1" in printed
    assert ("a, seed 0  corruptions" in printed) == terminal


def test_a_part_of_a_task_is_not_told_as_the_whole() -> None:
    ours, theirs = Pipe()
    teller = Teller(theirs)
    with teller.task("training", 10), teller.task("accuracy of the epoch", 500) as part:
        part.reach(400)
    with teller.measuring(), teller.task("clean images", 7):
        pass
    told = []
    while ours.poll():
        told.append(ours.recv())
    assert [(one.what, one.total) for one in told] == [
        ("training", 10),
        ("evaluating", None),
        ("clean images", 7),
    ]
    ours.close()
    with teller.task("training", 10):  # nobody listens any more: the run goes on to its checkpoint
        pass
