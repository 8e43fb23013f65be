"""Kill a process that shares in an evaluation, or in writing a set: the same command goes on."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab import in_step
from entprop_fast.lab.corruptions import suites, write_sets
from entprop_fast.lab.evaluation import saved_counts
from tests.lab.job.jobs import Jobs, start
from tests.lab.training.faults import killed

__all__ = ["start"]

KINDS = ("contrast", "brightness", "snow", "fog")  # two for each process
BATCHES = ("--device", "cpu", "--batch-size", "100")
NEVER = 10**9


def counting(folder: str, rank: int, *, dies: int = -1, at: int = NEVER) -> None:
    """Note each batch of corrupted images; one process dies as it begins one of them."""
    made = 0

    def noted(make: Any) -> Any:
        def noting(*args: Any, **more: Any) -> Any:
            nonlocal made
            made += 1
            if rank == dies and made == at:
                killed()
            with (Path(folder) / f"made {rank}").open("a") as log:
                log.write(".")
            return make(*args, **more)

        return noting

    patch = pytest.MonkeyPatch()
    patch.setattr(saved_counts, "EVERY", 0.0)
    patch.setattr(in_step, "EVERY", 0.0)  # a quick process, too, tells of each
    for module, name in (suites, "corrupt"), (write_sets, "corrupted_bytes"):
        patch.setattr(module, name, noted(getattr(module, name)))


def batches_made(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.glob("made *"))


def files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


@pytest.mark.parametrize(("door", "at"), [("evaluate", 15), ("corrupt", 25)])
def test_first_one_is_killed_then_the_other(
    door: str, at: int, start: Jobs, finished: Path, tmp_path: Path
) -> None:
    """Each is named; what was done before is not done again, and all is the same in the end."""
    shared, again = [str(finished), *BATCHES], list[str]()
    if door == "corrupt":  # a kind is 20 of its batches, and kept once it is whole
        shared, again = ["--dataset", "digits", "--kinds", *KINDS, *BATCHES], ["--resume"]
    one, two = tmp_path / "one", tmp_path / "two"
    logs = [tmp_path / name for name in ("alone", "first", "second", "third")]
    for log in logs:
        log.mkdir()
    alone = start([*shared, "--out", str(one)], partial(counting, str(logs[0])), world=1, door=door)
    for dies, log in enumerate(logs[1:3]):
        fault = partial(counting, str(log), dies=dies, at=5 if dies else at)
        job = start([*shared, "--out", str(two), *(again if dies else ())], fault, door=door)
        start.ended(job)
        assert job[dies].process.exitcode == -signal.SIGKILL, job[0].error
        (reason,) = job[1 - dies].reasons
        assert job[1 - dies].process.exitcode == 1 and f"rank {dies}" in reason
    job = start([*shared, "--out", str(two), *again], partial(counting, str(logs[3])), door=door)
    start.ended(alone, job)
    assert [member.process.exitcode for member in (*alone, *job)] == [0, 0, 0], job[0].error
    assert files(two) == files(one)
    whole, first, _, last = (batches_made(log) for log in logs)
    assert 0 < first < whole and last < whole
