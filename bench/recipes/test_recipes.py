"""`pytest bench/recipes`: images a second of every shipped recipe, and the hours that they mean."""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench import rows
from bench.recipes.cases import ROUNDS, STEPS, WARM_UP, Case, case_of, stepper
from bench.recipes.table import MEASURED, name_of, row_of
from entprop_fast.lab.training.recipe import data_set_recipes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("case", [case_of(name, DEVICE) for name in data_set_recipes()], ids=str)
def test_step(case: Case, benchmark: BenchmarkFixture) -> None:
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        stepper(case), rounds=ROUNDS, warmup_rounds=WARM_UP[DEVICE]
    )
    assert benchmark.stats is not None  # not with --benchmark-disable
    peak = torch.cuda.max_memory_reserved() if DEVICE == "cuda" else None
    low, middle, high = (
        getattr(benchmark.stats.stats, name) / STEPS[DEVICE] for name in ("q1", "median", "q3")
    )
    if not MEASURED:
        rows.begin(name_of(DEVICE))
    MEASURED.append(row_of(case, middle, (low, high), peak))
    rows.add(name_of(DEVICE), MEASURED[-1:])
