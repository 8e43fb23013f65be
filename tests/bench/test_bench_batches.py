"""bench/step/batches.py without a GPU: sizes and the table."""

from __future__ import annotations

from pathlib import Path

from bench import rows
from bench.step import batches
from bench.step import contenders as c
from bench.step.results import Row
from tests.bench.conftest import WHERE


def test_sizes_of_the_batch_are_all_that_differs() -> None:
    for arch in batches.ARCHITECTURES:
        found = batches.cases(arch)
        assert [setting.batch for setting in found] == list(batches.BATCHES)
        assert {(s.arch, s.k, s.n, s.device) for s in found} == {(arch, 0.2, 1, "cuda")}
    assert set(batches.WHO) <= c.BY_NAME.keys()


def test_the_table_is_in_shares_of_the_others(kept: dict[str, list[rows.Row]]) -> None:
    found = kept[batches.NAME] = []
    for setting in batches.cases("resnet18"):
        for name in batches.WHO:
            row = Row(setting, name, seconds=0.002, peak_memory=3 << 20)
            if name == c.CAPTURED:
                row.seconds = 0.001
            if name == c.VANILLA_CAPTURED:
                row.seconds = 0.004
            if setting.batch == 1024 and name in (c.CAPTURED, c.VANILLA_CAPTURED):
                row.seconds, row.refused = None, "out of memory"
            if setting.batch == 512 and name == c.VANILLA_CAPTURED:
                row.seconds = None
            found.append(row.as_json() | WHERE)
    text = batches.section(Path("docs/x.md"))
    assert "| resnet18 | 32 | 1.0 | 0.50 | 0.50 | 0.50 | 32000 | 3 |" in text
    assert "| resnet18 | 512 | 1.0 |  | 0.50 |" in text  # which layout is the better one?
    assert "| resnet18 | 1024 | no time: out of memory |" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {9}
