"""`pytest bench/corruptions`: batches beside image by image; a missed target is printed.

That both make the same images is what tests/lab/corruptions/test_values.py checks.
"""

import time
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.corruptions.cases import CASES, Call, Size, ours, photographs, theirs
from bench.corruptions.table import MEASURED, Measured
from bench.timing import medians, take_turns


@pytest.mark.parametrize(
    ("size", "kind"), CASES, ids=[f"{kind}-{size.side}" for size, kind in CASES]
)
def test_speed(size: Size, kind: str, benchmark: BenchmarkFixture) -> None:
    images = photographs(size.ours, size.side)
    batch = ours(images, kind, size.scale)
    one_by_one = theirs(images[: size.theirs], kind, size.scale)
    batch()  # tables and textures are made once
    timers = {"ours": partial(_seconds, batch), "theirs": partial(_seconds, one_by_one)}
    seconds = medians(take_turns(timers, rounds=size.rounds))
    measured = Measured(size, kind, seconds["ours"] / size.ours, seconds["theirs"] / size.theirs)
    MEASURED.append(measured)
    benchmark.extra_info["ratio over image by image"] = measured.theirs / measured.ours
    benchmark.pedantic(batch, rounds=1)  # type: ignore[no-untyped-call]


def _seconds(call: Call) -> float:
    """Measure the one thread's own time, which other programs on the machine do not take."""
    start = time.thread_time()
    call()
    return time.thread_time() - start
