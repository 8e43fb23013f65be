"""bench/step/batches.py and turns.py without a GPU: sizes, refusals, the table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest

from bench import rows
from bench.step import batches
from bench.step import contenders as c
from bench.step.results import Row
from bench.step.turns import take_turns
from bench.step.worker import Start, Worker
from tests.bench.conftest import WHERE

CONTENDERS = [one for one in c.CONTENDERS if one.name in batches.WHO]


class Told:
    """A worker that takes no step: it tells what it was made with."""

    def __init__(self, losses: Any = ((1.0, 2.0), (1.0, 2.0)), fails: str | None = None) -> None:
        self.losses, self.fails, self.turns = losses, fails, 0

    def prepare(self, setting: c.Setting) -> None:
        self.setting = setting

    def start(self) -> Start:
        if self.fails:
            raise RuntimeError(self.fails)
        return Start(list(self.losses), 7)

    def seconds(self) -> float:
        self.turns += 1
        return float(self.turns)

    def peak_memory(self) -> int:
        return 1 << 20


def turns(**others: Told) -> dict[str, Row]:
    workers = {name: Told() for name in batches.WHO} | others
    setting = batches.cases("resnet18")[0]
    found = take_turns(setting, CONTENDERS, cast(dict[str, Worker], workers), rounds=3)
    return {row.contender: row for row in found}


def test_sizes_of_the_batch_are_all_that_differs() -> None:
    for arch in batches.ARCHITECTURES:
        found = batches.cases(arch)
        assert [setting.batch for setting in found] == list(batches.BATCHES)
        assert {(s.arch, s.k, s.n, s.device) for s in found} == {(arch, 0.2, 1, "cuda")}
    assert {one.name for one in CONTENDERS} == set(batches.WHO)
    assert {one.base for one in CONTENDERS} <= set(batches.WHO)


def test_everyone_takes_as_many_turns() -> None:
    found = turns()
    assert {row.seconds for row in found.values()} == {2.0}  # the median of 1, 2, 3
    assert {row.refused for row in found.values()} == {None}
    assert found[c.CAPTURED].costs[c.VANILLA] == 1.0


@pytest.mark.parametrize("wrong", [1.1, math.nan])
def test_other_losses_get_no_time(wrong: float) -> None:
    found = turns(**{c.CAPTURED: Told([(1.0, 2.0), (1.0, wrong * 2.0)])})
    assert found[c.CAPTURED].seconds is None
    assert "its losses differ from reference's" in str(found[c.CAPTURED].refused)
    assert found[c.OURS].seconds == 2.0


def test_a_contender_that_fails_is_named_and_the_rest_goes_on() -> None:
    found = turns(**{c.OURS: Told(fails="OutOfMemoryError: 80 GB\nand more")})
    assert found[c.OURS].refused == "OutOfMemoryError: 80 GB"
    assert found[c.CAPTURED].seconds == 2.0
    nobody = turns(**{c.REFERENCE: Told(fails="dead")})
    assert "which it has to agree with, failed" in str(nobody[c.CAPTURED].refused)


def test_the_table_is_in_shares_of_the_others(kept: dict[str, list[rows.Row]]) -> None:
    found = kept[batches.NAME] = []
    for setting in batches.cases("resnet18"):
        for name in batches.WHO:
            row = Row(setting, name, seconds=0.002, peak_memory=3 << 20)
            if name == c.CAPTURED:
                row.seconds = 0.001
            if setting.batch == 1024 and name in (c.CAPTURED, c.VANILLA):
                row.seconds, row.refused = None, "out of memory"
            if setting.batch == 512 and name == c.VANILLA:
                row.seconds = None
            found.append(row.as_json() | WHERE)
    text = batches.section(Path("docs/x.md"))
    assert "| resnet18 | 32 | 1.0 | 0.50 | 0.50 | 0.50 | 0.50 | 32000 | 3 |" in text
    assert "| resnet18 | 512 | 1.0 |  | 0.50 |" in text
    assert "| resnet18 | 1024 | no time: out of memory |" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {10}
