"""`pytest bench/ops`: every op beside torch eager; fails where a target is missed."""

from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.ops.cases import Case, cases
from bench.ops.conftest import MEASURED, geometric_means
from bench.ops.timing import compare
from entprop_fast.ops import backend

CASES = {f"{c.op}-{c.layout}-{'x'.join(map(str, c.shape))}": c for c in cases()}
KEYS = list(dict.fromkeys((c.op, c.layout) for c in CASES.values()))

pytestmark = pytest.mark.skipif(
    "cpu" not in backend.KERNEL_DEVICES, reason="the C++ kernels are not built"
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The table is for one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
def test_speed(name: str, benchmark: BenchmarkFixture) -> None:
    """No shape below three quarters of its target."""
    case: Case = CASES[name]
    contenders = case.contenders()
    comparison = compare(contenders)
    MEASURED.append((case, comparison))
    benchmark.extra_info["ratio over eager"] = comparison.ratio("eager")
    benchmark.pedantic(contenders["ours"], rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert comparison.ratio("eager") >= 0.75 * case.target


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_geometric_mean(key: tuple[str, str]) -> None:
    """The target itself, over the shapes of one row of the table."""
    if key not in geometric_means():
        pytest.skip("none of its shapes was measured in this run")
    mean, target = geometric_means()[key]
    assert mean >= target
