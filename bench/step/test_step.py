"""`pytest bench/step`: a training step of EntProp beside what a user would otherwise run."""

from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench import rows
from bench.step.cases import at_once, contenders, rounds, settings
from bench.step.conftest import MEASURED
from bench.step.contenders import CAPTURED, OURS, Setting
from bench.step.results import Row
from bench.step.table import name_of
from bench.step.turns import Crew, take_turns

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


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

    def keep(found: list[Row]) -> None:
        """Write all rows so far, those of this setting as they are by now."""
        rows.begin(name_of(DEVICE))
        rows.add(name_of(DEVICE), [row.as_json() for row in (*MEASURED, *found)])

    found = take_turns(
        setting, here, workers, rounds(setting), at_once=at_once(setting), watch=keep
    )
    MEASURED.extend(found)
    keep([])
    benchmark.extra_info.update({row.contender: row.seconds for row in found})
    who = CAPTURED if CAPTURED in workers else OURS
    benchmark.pedantic(workers[who].seconds)  # type: ignore[no-untyped-call]
    assert not [f"{row.contender}: {row.refused}" for row in found if row.refused]
