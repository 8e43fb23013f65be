"""`pytest bench/step`: a training step of EntProp beside what a user would otherwise run."""

import math
from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench import rows
from bench.step.cases import contenders, rounds, settings
from bench.step.conftest import MEASURED
from bench.step.contenders import OURS, Contender, Setting
from bench.step.results import Row, measure
from bench.step.table import name_of
from bench.step.worker import Start, Worker

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# What another order of summation moves in two steps, in float32 and in bf16: most where the sign
# of an image gradient near zero flips, which the auxiliary loss sees.
TOLERANCE = {"cpu": 2e-3, "cuda": 3e-2}


def difference(found: Start, expected: Start) -> float:
    """The largest relative difference of the losses of two contenders' first steps."""
    pairs = zip(sum(found.losses, ()), sum(expected.losses, ()), strict=True)
    return max(abs(a - b) / max(abs(b), 1e-6) if a == a else math.inf for a, b in pairs)


class Crew:
    """The workers of a run: on CUDA one a contender for all of it, since starting one is slow.

    On the CPU every setting has new ones: there peak memory is that of a whole process.
    """

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def of(self, contenders: list[Contender], device: str) -> dict[str, Worker]:
        """A worker for each contender, by name."""
        if device == "cpu":
            self.dismiss()
        for one in contenders:
            if one.name not in self._workers or not self._workers[one.name].alive:
                self._workers[one.name] = Worker(one, threads=1).__enter__()
        return {one.name: self._workers[one.name] for one in contenders}

    def dismiss(self) -> None:
        """End their processes."""
        while self._workers:
            self._workers.popitem()[1].__exit__(None, None, None)


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.dismiss()


@pytest.mark.parametrize("setting", settings(DEVICE), ids=str)
def test_step(setting: Setting, crew: Crew, benchmark: BenchmarkFixture) -> None:
    """Every contender in turns; one whose losses are not its reference's gets no time."""
    here = contenders(setting)
    workers = crew.of(here, DEVICE)
    starts: dict[str, Start] = {}
    table = {contender.name: Row(setting, contender.name) for contender in here}
    for worker in workers.values():
        worker.prepare(setting)
    for name, worker in workers.items():
        try:
            starts[name] = worker.start()
        except RuntimeError as error:
            table[name].refused = str(error).splitlines()[0]
    for contender in here:
        if contender.name in starts:
            _compare(contender, table[contender.name], starts)
    ready = {name: workers[name] for name, row in table.items() if row.refused is None}
    measure(list(table.values()), ready, rounds(setting))
    if not MEASURED:
        rows.begin(name_of(DEVICE))
    MEASURED.extend(table.values())
    rows.add(name_of(DEVICE), [row.as_json() for row in table.values()])
    benchmark.extra_info.update({row.contender: row.seconds for row in table.values()})
    benchmark.pedantic(ready[OURS].seconds)  # type: ignore[no-untyped-call]
    assert not [f"{row.contender}: {row.refused}" for row in table.values() if row.refused]


def _compare(contender: Contender, row: Row, starts: dict[str, Start]) -> None:
    base, start = contender.base, starts[row.contender]
    row.launches = start.launches
    if base not in starts:
        row.refused = f"{base}, which it has to agree with, failed"
        return
    row.loss_difference = difference(start, starts[base])
    if row.loss_difference > TOLERANCE[row.setting.device]:
        row.refused = f"its losses differ from {base}'s by {row.loss_difference:.1e}"
