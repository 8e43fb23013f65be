"""`pytest bench/ops`: every op beside torch eager; a missed target is printed, never a failure.

What fails is a case whose contenders do not compute the same: it gets no ratio.
"""

from collections.abc import Iterator, Sequence

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.ops.agreement import disagreement
from bench.ops.cases import cases, devices
from bench.ops.table import MEASURED, Measured
from bench.ops.timing import clocks, compare
from entprop_fast.ops import backend

CASES = {f"{device}-{case.name}": (device, case) for device in devices() for case in cases(device)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The CPU's table is for one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
def test_speed(name: str, benchmark: BenchmarkFixture) -> None:
    device, case = CASES[name]
    if device not in backend.KERNEL_DEVICES:
        pytest.skip(f"no kernels for {device}")
    torch.manual_seed(0)
    contenders = case.contenders()
    assert disagreement(contenders, case.dtype) is None
    for cache, clock in clocks(device).items():
        comparison = compare(contenders, clock=clock)
        MEASURED[device].append(Measured(case, cache, comparison))
        benchmark.extra_info[f"ratio over eager, {cache}"] = comparison.ratio("eager")

    def finished() -> Sequence[Tensor]:
        results = contenders["ours"]()
        if device == "cuda":
            torch.cuda.synchronize()
        return results

    benchmark.pedantic(finished, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
