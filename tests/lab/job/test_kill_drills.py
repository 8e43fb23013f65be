"""Kill a rank of two at 20 moments: the other ends, and nothing after the last save is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.lab.conftest import assert_same
from tests.lab.job.jobs import Jobs, jobs_in
from tests.lab.job.moments import Moment, count, drawn, kill

KILLS, AT_ONCE = 20, 5
OPTIONS = (
    *("--epochs", "2", "--train-size", "64", "--mixup", "0.2", "--augment", "crop-flip"),
    *("--save-every", "2steps"),
)
ENDS = 30.0  # seconds


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    yield from jobs_in(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def whole(jobs: Jobs) -> Path:
    """A run that nothing disturbed, beside its moments."""
    out = jobs.folder / "whole"
    job = jobs([*OPTIONS, "--out", str(out)], partial(count, jobs.folder))
    assert [member.ended()[0] for member in job] == [0, 0], job[0].error
    return out


@pytest.fixture(scope="module")
def moments(jobs: Jobs, whole: Path) -> list[Moment]:
    counts = [json.loads((jobs.folder / f"{rank}.json").read_text()) for rank in range(2)]
    found = drawn(counts, KILLS, seed=19)
    assert {moment.rank for moment in found} == {0, 1}
    assert {moment.kind for moment in found} == counts[0].keys() | counts[1].keys()
    return found


@pytest.mark.parametrize("first", range(0, KILLS, AT_ONCE))
def test_a_rank_is_killed(first: int, jobs: Jobs, moments: list[Moment], whole: Path) -> None:
    """All of them end in time, one line names the rank, and the run goes on to the bit."""
    begun = {}
    for number, moment in enumerate(moments[first : first + AT_ONCE], first):
        out = jobs.folder / f"killed {number}"
        begun[number, moment] = out, jobs([*OPTIONS, "--out", str(out)], partial(kill, moment))
    jobs.ended(*(job for _, job in begun.values()))
    resumed = {}
    for (number, moment), (out, job) in begun.items():
        dead, other = job[moment.rank], job[1 - moment.rank]
        about = (number, moment, other.said, other.error)
        assert dead.process.exitcode == -signal.SIGKILL, about
        assert other.process.exitcode == 1, about
        assert 0 < other.seconds - dead.seconds < ENDS, about
        print(moment, f"{other.seconds - dead.seconds:.1f} s")
        assert len(other.reasons) == 1 and not dead.error, about
        assert other.reasons[0].startswith("failed: ") and f"rank {moment.rank}" in other.reasons[0]
        resumed[out] = jobs([*OPTIONS, "--out", str(out), "--resume"])
    jobs.ended(*resumed.values())
    for out, job in resumed.items():
        assert [member.process.exitcode for member in job] == [0, 0], (out, job[0].error)
        assert_same(out, whole)
        assert not [one.name for one in out.iterdir() if one.name.endswith((".part", ".lease"))]
