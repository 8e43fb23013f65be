"""`pytest bench/augment`: batches beside image by image; a missed target is printed.

That ours are the others' operations is what tests/ops/test_image_chains.py and tests/augment check.
"""

import time
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.augment.cases import CASES, Call, Case, Size, ours, peers
from bench.augment.table import MEASURED, Measured
from bench.corruptions.cases import photographs
from bench.timing import medians, take_turns


@pytest.mark.filterwarnings("ignore:torchvision:RuntimeWarning")
@pytest.mark.parametrize(
    ("size", "case"), CASES, ids=[f"{case.name}-{size.side}" for size, case in CASES]
)
def test_speed(size: Size, case: Case, benchmark: BenchmarkFixture) -> None:
    torch.manual_seed(0)
    images = photographs(size.ours, size.side)
    batch = ours(case, images)
    calls = {"ours": batch, **peers(case, images[: size.theirs])}
    for call in calls.values():
        call()  # what is made once
    timers = {name: partial(_seconds, call) for name, call in calls.items()}
    seconds = medians(take_turns(timers, rounds=case.rounds))
    counts = {name: size.ours if name == "ours" else size.theirs for name in seconds}
    measured = Measured(size, case, {name: seconds[name] / counts[name] for name in seconds})
    MEASURED.append(measured)
    for name in seconds.keys() - {"ours"}:
        benchmark.extra_info[f"ratio over {name}"] = measured.ratio(name)
    benchmark.pedantic(batch, rounds=1)  # type: ignore[no-untyped-call]


def _seconds(call: Call) -> float:
    """Measure the one thread's own time, which other programs on the machine do not take."""
    start = time.thread_time()
    call()
    return time.thread_time() - start
