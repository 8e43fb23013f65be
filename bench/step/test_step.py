"""`pytest bench/step`: a training step of EntProp beside what a user would otherwise run."""

import math
from contextlib import ExitStack

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.step.cases import contenders, settings
from bench.step.conftest import MEASURED
from bench.step.contenders import OURS, REFERENCE, VANILLA, Contender, Setting
from bench.step.results import Row, measure
from bench.step.worker import Start, Worker

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# What another order of summation moves in two steps, in float32 and in bf16: most where the sign
# of an image gradient near zero flips, which the auxiliary loss sees.
TOLERANCE = {"cpu": 2e-3, "cuda": 3e-2}
ROUNDS = {"cpu": 5, "cuda": 30}


def difference(found: Start, expected: Start) -> float:
    """The largest relative difference of the losses of two contenders' first steps."""
    pairs = zip(sum(found.losses, ()), sum(expected.losses, ()), strict=True)
    return max(abs(a - b) / max(abs(b), 1e-6) if a == a else math.inf for a, b in pairs)


@pytest.mark.parametrize("setting", settings(DEVICE), ids=str)
def test_step(setting: Setting, benchmark: BenchmarkFixture) -> None:
    """Every contender in turns; one whose losses are not the reference's gets no time."""
    ready: dict[str, Worker] = {}
    starts: dict[str, Start] = {}
    with ExitStack() as stack:
        here = [(contender, Row(setting, contender.name)) for contender in contenders(setting)]
        for contender, row in here:
            worker = stack.enter_context(Worker(contender, setting, threads=1))
            try:
                starts[row.contender] = worker.start()
            except RuntimeError as error:
                row.refused = str(error).splitlines()[0]
                continue
            _compare(contender, row, starts)
            if row.refused is None:
                ready[row.contender] = worker
        rows = [row for _, row in here]
        measure(rows, ready, ROUNDS[DEVICE])
        MEASURED.extend(rows)
        benchmark.extra_info.update({row.contender: row.seconds for row in rows})
        benchmark.pedantic(ready[OURS].seconds, rounds=3)  # type: ignore[no-untyped-call]
    assert not [f"{row.contender}: {row.refused}" for row in rows if row.refused]


def _compare(contender: Contender, row: Row, starts: dict[str, Start]) -> None:
    base = REFERENCE if contender.entprop else VANILLA
    start = starts[row.contender]
    row.launches = start.launches
    row.loss_difference = difference(start, starts[base])
    if row.loss_difference > TOLERANCE[row.setting.device]:
        row.refused = f"its losses differ from {base}'s by {row.loss_difference:.1e}"
