"""bench/step's turns, rows and workers without a GPU: refusals, order, what is let go."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from bench.step import batches, cases, turns, worker
from bench.step import contenders as c
from bench.step.results import Row
from bench.step.turns import Crew, take_turns
from bench.step.worker import Start, Worker

CONTENDERS = [one for one in c.CONTENDERS if one.name in batches.WHO]
SETTING = batches.cases("resnet18")[0]
BASES = (c.VANILLA, c.REFERENCE)


class Told:
    """A worker that takes no step: it tells what it was made with."""

    def __init__(self, losses: Any = (), fails: str | None = None) -> None:
        self.losses, self.fails, self.turns = losses or [(1.0, 2.0)] * 6, fails, 0
        self.log: list[str] = []

    def prepare(self, setting: c.Setting, *, at_once: bool) -> None:
        self.log.append("at once" if at_once else "prepared")

    def start(self) -> Start:
        self.log.append("start")
        if self.fails:
            raise RuntimeError(self.fails)
        return Start(list(self.losses), 7)

    def release(self) -> None:
        self.log.append("release")

    def seconds(self) -> float:
        self.turns += 1
        return float(self.turns)

    def peak_memory(self) -> int:
        return 1 << 20


def measure(
    others: dict[str, Told] | None = None, rounds: int = 3, watched: Any = None
) -> dict[str, Row]:
    workers = {name: Told() for name in (*BASES, *batches.WHO)} | (others or {})
    made = cast(dict[str, Worker], workers)
    seen = [] if watched is None else watched
    found = take_turns(
        SETTING,
        CONTENDERS,
        made,
        rounds,
        at_once=False,
        watch=lambda rows: seen.append([replace(row) for row in rows]),
    )
    return {row.contender: row for row in found}


def test_everyone_takes_as_many_turns() -> None:
    found = measure()
    assert found.keys() == set(batches.WHO)
    assert {row.seconds for row in found.values()} == {2.0}  # the median of 1, 2, 3
    assert {row.quartiles for row in found.values()} == {(1.0, 3.0)}
    assert {row.refused for row in found.values()} == {None}
    assert {(row.launches, row.peak_memory) for row in found.values()} == {(7, 1 << 20)}


def test_rows_are_shown_every_few_rounds() -> None:
    watched: list[list[Row]] = []
    found = measure(rounds=8, watched=watched)
    assert [rows[0].rounds for rows in watched] == [3, 6, 8]
    assert [rows[-1].seconds for rows in watched] == [2.0, 3.5, 4.5]
    assert watched[-1] == list(found.values())


@pytest.mark.parametrize("wrong", [1.1, math.nan])
def test_other_losses_get_no_time(wrong: float) -> None:
    found = measure({c.CAPTURED: Told([(1.0, 2.0), (1.0, wrong * 2.0), *[(1.0, 2.0)] * 4])})
    assert found[c.CAPTURED].seconds is None
    assert "its losses differ from reference's" in str(found[c.CAPTURED].refused)
    assert found[c.OURS].seconds == 2.0


@pytest.mark.parametrize(("later", "refused"), [(1.1, False), (1.2, True), (math.nan, True)])
def test_later_losses_may_differ_by_more(later: float, refused: bool) -> None:
    """A replay is among them."""
    found = measure({c.CAPTURED: Told([*[(1.0, 2.0)] * 5, (1.0, 2.0 * later)])})
    assert (found[c.CAPTURED].refused is not None) == refused
    if refused:
        assert "its later losses differ from reference's" in str(found[c.CAPTURED].refused)
    assert found[c.CAPTURED].loss_difference == 0


def test_a_contender_that_fails_is_named_and_the_rest_goes_on() -> None:
    found = measure({c.OURS: Told(fails="OutOfMemoryError: 80 GB\nand more")})
    assert found[c.OURS].refused == "OutOfMemoryError: 80 GB"
    assert found[c.CAPTURED].seconds == 2.0
    nobody = measure({c.REFERENCE: Told(fails="dead")})
    assert "which it has to agree with, failed" in str(nobody[c.CAPTURED].refused)
    assert nobody[c.VANILLA_CAPTURED].seconds == 2.0


def test_bases_that_take_no_turns_are_let_go() -> None:
    workers = {name: Told() for name in (*BASES, *batches.WHO)}
    measure(workers)
    for name, one in workers.items():
        last = ["release"] if name in BASES else []
        assert one.log == ["prepared", "start", *last] and (one.turns == 0) == bool(last)


class Started:
    """A process that is not there."""

    alive = True

    def __init__(self, contender: c.Contender, threads: int) -> None:
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


def test_workers_are_kept_on_cuda_as_long_as_they_are_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "Worker", Started)
    crew, (main, large) = Crew(), (cases.settings("cuda")[place] for place in (0, 2))
    first = cast(dict[str, Started], crew.of(cases.contenders(main), "cuda"))
    assert c.PIPELINED_REFERENCE in first  # it takes no turns, and its losses are needed
    second = crew.of(cases.contenders(large), "cuda")
    assert {n: w for n, w in first.items() if not w.stopped}.items() <= second.items()
    assert {n for n, w in first.items() if w.stopped} == first.keys() - second.keys() != set()
    third = crew.of(cases.contenders(large), "cpu")
    assert all(one is not third[name] for name, one in second.items())


def test_a_worker_builds_starts_and_lets_go() -> None:
    """One process for all of it; what cannot be built is said, and the next setting goes on."""
    small = c.Setting("wrn10_0.5", 8, 8, 10, k=0.25, n=1, device="cpu")
    one = Worker(c.BY_NAME[c.VANILLA], threads=1)
    try:
        for at_once in (True, False):
            one.prepare(replace(small, arch="no such network"), at_once=at_once)
            with pytest.raises(RuntimeError, match="no such network"):
                one.start()
            one.prepare(small, at_once=at_once)
            losses, launches = one.start()
            assert len(losses) == worker.CHECKED_STEPS and launches is None
            assert losses[0][0] != losses[1][0] and losses[0][1] == 0
            assert one.seconds() > 0
            one.release()
            with pytest.raises(RuntimeError):  # nothing is left to step
                one.seconds()
    finally:
        one.stop()
    assert not one.alive


def test_memory_on_cuda_is_what_is_held_after_all_else_was_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    class Fake(worker._Served):
        def __init__(self) -> None:
            self._cuda = True
            self._run = self._step

        def _step(self) -> tuple[torch.Tensor, torch.Tensor]:
            log.append("step")
            return torch.ones(()), torch.ones(())

        def _launches(self) -> int:
            return 9

    for name in ("empty_cache", "synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: log.append(name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 5)
    served = Fake()
    losses, launches = served.start()
    assert len(losses) == worker.CHECKED_STEPS + worker.MORE_STEPS and launches == 9
    assert log[-4:] == ["step", "synchronize", "empty_cache", "reset_peak_memory_stats"]
    assert served.memory() == 5
