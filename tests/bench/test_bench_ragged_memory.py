"""bench/ragged_memory.py without a GPU: which batches come, what a row holds, the table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench import ragged_memory, rows
from entprop_fast.capture.shapes import WARM_UP
from tests.bench.conftest import WHERE

NEVER, EAGER, CAPTURED = ragged_memory.KINDS


def test_a_smaller_batch_comes_as_often_as_its_name_says() -> None:
    sizes = [Counter(ragged_memory.batches(kind, 128)) for kind in ragged_memory.KINDS]
    assert sizes == [{128: ragged_memory.STEPS}, {128: 10, 80: 2}, {128: 30, 80: 6}]
    # What decides whether the smaller one has a graph.
    assert EAGER.epochs <= WARM_UP < CAPTURED.epochs and ragged_memory.STEPS > WARM_UP
    *_, last = ragged_memory.batches(EAGER, 128)
    assert last == 80  # when the graph of the others is there


def test_a_row_of_small_steps_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ragged_memory.NETWORKS, "wrn10_0.5", (8, 8, 3))
    row = ragged_memory.measure("wrn10_0.5", CAPTURED, "auto", device="cpu")
    assert (row["batch"], row["smaller_rows"], row["replays"]) == (8, 5, 0)
    assert row["smaller_batch"] == CAPTURED.name and row["peak_reserved"] is None


def test_the_table_is_in_shares_of_eager_runs(kept: dict[str, list[rows.Row]]) -> None:
    found = kept[ragged_memory.NAME] = []
    for kind in ragged_memory.KINDS:
        for capture in ragged_memory.CAPTURES:
            size = (3 if capture == "auto" else 2) << 20
            replays = 4 if capture == "auto" and kind is not NEVER else 0
            what = {"arch": "resnet18", "smaller_batch": kind.name, "capture": capture}
            found.append(what | {"replays": replays, "peak_reserved": size} | WHERE)
    text = ragged_memory.section(Path("docs/x.md"))
    assert "| resnet18 | none | 2 | not captured |  |" in text
    assert f"| resnet18 | {EAGER.name} | 2 | 3 | 1.50 |" in text
