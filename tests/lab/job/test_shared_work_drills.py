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

KINDS = ("contrast", "brightness", "snow")
BATCHES = ("--device", "cpu", "--batch-size", "100")
NEVER = 10**9


def counting(folder: str, rank: int, *, dies: int = -1, at: int = NEVER) -> None:
    """Note each batch of corrupted images; one process dies as it begins one of them."""
    made = 0
    patched: Any = saved_counts
    patched.EVERY, in_step.EVERY = 0.0, 0.05  # type: ignore[misc]

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
    patch.setattr(suites, "corrupt", noted(suites.corrupt))
    patch.setattr(write_sets, "corrupted_bytes", noted(write_sets.corrupted_bytes))


def batches_made(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.glob("made *"))


def files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


@pytest.mark.parametrize(("door", "at"), [("evaluate", 15), ("corrupt", 25)])
def test_one_of_two_is_killed(
    door: str, at: int, start: Jobs, finished: Path, tmp_path: Path
) -> None:
    """Whichever it is, it is named; what was done before is not done again, and all is the same."""
    shared, again = [str(finished), *BATCHES], list[str]()
    if door == "corrupt":  # a kind is 20 of its batches, and kept once it is whole
        shared, again = ["--dataset", "digits", "--kinds", *KINDS, *BATCHES], ["--resume"]
    one = tmp_path / "one"
    one.mkdir()
    words = lambda name: [*shared, "--out", str(tmp_path / f"{name} out")]  # noqa: E731
    alone = start(words("one"), partial(counting, str(one)), world=1, door=door)
    begun = {}
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        fault = partial(counting, str(tmp_path / str(rank)), dies=rank, at=at)
        begun[rank] = start(words(str(rank)), fault, door=door)
    start.ended(alone, *begun.values())
    whole, before, resumed = batches_made(one), {}, {}
    for rank, job in begun.items():
        assert job[rank].process.exitcode == -signal.SIGKILL, job[0].error
        (reason,) = job[1 - rank].reasons
        assert job[1 - rank].process.exitcode == 1 and f"rank {rank}" in reason
        before[rank] = batches_made(tmp_path / str(rank))
        (tmp_path / f"{rank} again").mkdir()
        fault = partial(counting, str(tmp_path / f"{rank} again"))
        resumed[rank] = start([*words(str(rank)), *again], fault, door=door)
    start.ended(*resumed.values())
    for rank, job in resumed.items():
        assert [member.process.exitcode for member in job] == [0, 0], job[0].error
        assert files(tmp_path / f"{rank} out") == files(tmp_path / "one out")
        after = batches_made(tmp_path / f"{rank} again")
        assert 0 < before[rank] < whole and after < whole, (before, after, whole)
