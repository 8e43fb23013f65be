"""Check that ranks save, warn, roll back and resume alike, whatever each of them met."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast.lab import checkpoint, job
from entprop_fast.lab.training import rank_states, recipe, run_record
from entprop_fast.lab.training.engine import train
from entprop_fast.lab.training.errors import NotFinite, RunFailed
from entprop_fast.lab.training.meter import Meter
from entprop_fast.lab.training.rollback import Rollbacks
from entprop_fast.lab.training.save_times import SaveTimes
from entprop_fast.methods import Method, StepResult, create_method
from tests.lab.training.faults import SaveFault, broken_after, full
from tests.processes import in_two_processes

CPU = torch.device("cpu")


def told(work: Callable[[], object]) -> str:
    """The words of what `work` raises."""
    try:
        work()
    except (NotFinite, RunFailed) as error:
        return str(error)
    return "nothing"


def due_by(seconds_a_step: float) -> list[bool]:
    """When a rank whose clock runs so fast saves, every 10 s of rank 0's."""
    with pytest.MonkeyPatch.context() as patch:
        clock = itertools.count()
        patch.setattr(time, "monotonic", lambda: 0.0)
        times = SaveTimes("10s")
        found = []
        for step in range(40):
            now = next(clock) * seconds_a_step
            patch.setattr(time, "monotonic", lambda now=now: now)
            found.append(times.due(step))
    return found


def read(rank: int) -> None:
    meter, one = Meter(), torch.tensor(1.0)
    for step in range(1, 4):
        loss = torch.tensor(math.nan if rank and step > 1 else 1.0)
        meter.add(step, 1, StepResult(loss, one, one, one, one))
    meter.read()


def check(rank: int) -> None:
    run_record.check_finite({"norm": torch.tensor(math.nan if rank else 1.0)}, 7)


def method_of(rank: int) -> Method:
    """One of free_at, with rows of its own."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(5 + rank)
    return create_method("free_at", model, optimizer, generator=generator, replays=1)


def saved(rank: int) -> dict[str, Any]:
    method = method_of(rank)
    method.delta = torch.arange(2 * 4.0).view(2, 1, 2, 2) + 100 * rank  # type: ignore[attr-defined]
    state = rank_states.gathered(method, CPU)
    again = method_of(7)
    place = {"device": "cpu", "epoch": 0, "batch": 3}
    rank_states.load(state | place, again, CPU, pytest.fail, seed=0)
    state["back"] = [again.delta, again.state_dict()["generator"]]  # type: ignore[attr-defined]
    return state


def work(rank: int, folder: str) -> dict[str, Any]:
    with job.joined(job.of_group()):
        return {
            "due": due_by(1.0 if rank == 0 else 0.01),
            "read": told(functools.partial(read, rank)),
            "check": told(functools.partial(check, rank)),
            "saved": saved(rank),
        }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    return in_two_processes(functools.partial(work, folder=str(folder)), folder)


def test_the_clock_of_rank_0_decides(found: list[dict[str, Any]]) -> None:
    """It asks the others seldom, and saves no more than a step's time late."""
    assert found[0]["due"] == found[1]["due"]
    assert [step for step, due in enumerate(found[0]["due"]) if due] == [10, 20, 30]


@pytest.mark.parametrize(("what", "place"), [("read", "step 2"), ("check", "step 7")])
def test_what_breaks_on_one_rank_breaks_on_all(
    what: str, place: str, found: list[dict[str, Any]]
) -> None:
    assert found[0][what] == found[1][what]
    assert place in found[0][what] and "(rank 1)" in found[0][what]


def test_each_rank_gets_back_what_it_had(found: list[dict[str, Any]]) -> None:
    for rank, one in enumerate(found):
        delta, generator = one["saved"]["back"]
        assert torch.equal(delta, torch.arange(8.0).view(2, 1, 2, 2) + 100 * rank)
        assert torch.equal(generator, torch.Generator().manual_seed(5 + rank).get_state())


def test_one_process_goes_on_with_the_rows_of_two(found: list[dict[str, Any]]) -> None:
    """Row i of the whole batch was on rank ``i % 2``."""
    said: list[str] = []
    method = method_of(0)
    place = {"device": "cpu", "epoch": 0, "batch": 3}
    rank_states.load(found[0]["saved"] | place, method, CPU, said.append, seed=0)
    first = torch.arange(8.0).view(2, 1, 2, 2)
    expected = torch.stack((first[0], first[0] + 100, first[1], first[1] + 100))
    assert torch.equal(method.delta, expected)  # type: ignore[attr-defined]
    assert said == ["saved by 2 processes, continued by 1: not bit for bit"]


# Whole runs of two processes: rank 1's weights become NaN; rank 0's disk is full.


def runs(rank: int, folder: str) -> dict[str, Any]:
    settings: dict[str, Any] = {
        **{"epochs": 1, "batch_size": 8, "train_size": 40, "corruptions": "none"},
        **{"save_every": "1steps", "on_nan": "rollback", "device": "cpu", "threads": 1},
    }

    def run(name: str) -> int:
        config = recipe.resolve("digits", out=f"{folder}/{name}", **settings)
        return train(config, pictures=False).rollbacks

    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            broken_after(patch, 3)
        found["rollbacks"] = run("broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rollbacks, "skips", lambda self, step: step == 3)
        run("expected")
    with pytest.MonkeyPatch.context() as patch:
        SaveFault(patch, 5, 0, full)  # the epoch's, after one of each of its 5 steps
        found["full"] = told(lambda: run("full"))
    return found


def test_runs_of_two_processes(tmp_path: Path) -> None:
    found = in_two_processes(functools.partial(runs, folder=str(tmp_path)), tmp_path)
    assert [one["rollbacks"] for one in found] == [1, 1]
    states = [checkpoint.read(tmp_path / name / "checkpoint.pt") for name in ("broken", "expected")]
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][name]), name
    assert all("No space left" in one["full"] for one in found)
    assert checkpoint.read_newest(tmp_path / "full", pytest.fail) is not None
