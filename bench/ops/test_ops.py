"""`pytest bench/ops`: every op beside torch eager; a missed target is printed, never a failure.

What fails is a case whose contenders do not compute the same: it gets no ratio.
"""

from collections.abc import Sequence

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench import rows
from bench.memory import peaks_of
from bench.ops.agreement import disagreement
from bench.ops.cases import cases, devices
from bench.ops.table import MEASURED, MEMORY, Measured, name_of, row_of
from bench.ops.timers import copy_bandwidth, timers_of
from bench.timing import compare
from entprop_fast.lab.training.allocator import keep_freed_memory
from entprop_fast.ops import backend

BUDGET = {"cpu": 1.0, "cuda": 0.2}  # seconds for a case and state of the cache
KEPT_BUDGET = 0.5
# What keeps memory comes last: nothing gives it back to the process's first state.
CASES = {
    f"{device}{'-kept' * kept}-{case.name}": (device, case, kept)
    for device in devices()
    for kept in MEMORY[device]
    for case in cases(device)
}


@pytest.mark.parametrize("name", CASES)
def test_speed(name: str, benchmark: BenchmarkFixture) -> None:
    device, case, kept = CASES[name]
    if device not in backend.KERNEL_DEVICES:
        pytest.skip(f"no kernels for {device}")
    if kept and not keep_freed_memory():
        pytest.skip("no glibc, whose allocator this is about")
    torch.manual_seed(0)
    torch.compiler.reset()  # it gives up on a function after a few shapes
    contenders = case.contenders()
    assert disagreement(contenders, case.dtype) is None
    peaks = peaks_of(contenders, device)
    for cache, timers in timers_of(device, contenders, case.contenders).items():
        comparison = compare(timers, budget=KEPT_BUDGET if kept else BUDGET[device])
        measured = Measured(case, cache, kept, comparison, peaks)
        if not MEASURED[device]:
            rows.begin(name_of(device))
        MEASURED[device].append(measured)
        rows.add(name_of(device), [row_of(measured, copy_bandwidth(device))])
        benchmark.extra_info[f"ratio over eager, {cache}"] = comparison.ratio("eager")

    def finished() -> Sequence[Tensor]:
        results = contenders["ours"]()
        if device == "cuda":
            torch.cuda.synchronize()
        return results

    benchmark.pedantic(finished, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
