"""`pytest bench/fusion`: EntProp's step with sum and ReLU fused into the norms, and without."""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench import rows
from bench.fusion.steps import CASES, Case, measure
from bench.fusion.table import MEASURED, name_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_step(case: Case, benchmark: BenchmarkFixture) -> None:
    row = benchmark.pedantic(lambda: measure(case, DEVICE))  # type: ignore[no-untyped-call]
    if not MEASURED:
        rows.begin(name_of(DEVICE))
    MEASURED.append(row)
    rows.add(name_of(DEVICE), [row])
