"""bench/ops/sweep.py without a GPU: its rows, whom they are kept by, and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import collect, rows
from bench.ops import sweep
from bench.timing import Comparison
from entprop_fast.kernels import dual_batch_norm_cut as cutting


def swept(shape: tuple[int, ...], number: int, cut: cutting.Cut) -> rows.Row:
    """A row of the sweep; later cuts are faster."""
    times = {"forward": 1e-6, "both": (3 - number / 10) * 1e-6}
    spreads = {"forward": (0.5e-6, 1.5e-6), "both": None}
    ours = Comparison(times, spreads), {"forward": 10, "both": 20}
    native = Comparison({"native forward": 2e-6, "native both": 4e-6}), {"native both": 40}
    return sweep.row_of(shape, cut, 132, ours, native)


def test_a_row_of_the_sweep_has_microseconds_quartiles_and_peaks() -> None:
    row = swept(sweep.SHAPES[0], 0, sweep.CUTS[0])
    assert (row["forward"], row["both"], row["native both"]) == pytest.approx((1, 3, 4))
    assert row["quartiles"] == {"forward": pytest.approx([0.5, 1.5]), "both": None}
    assert row["peak_memory"] == {"forward": 10, "both": 20, "native both": 40}


def test_rows_of_the_sweep_are_those_that_a_campaign_collects() -> None:
    wanted = collect.TABLES[sweep.NAME]
    found = [swept(shape, *one) for shape in sweep.SHAPES for one in enumerate(sweep.CUTS)]
    assert [wanted.key(json.loads(json.dumps(row))) for row in found] == list(wanted.wanted())


def test_the_sweep_tells_its_cuts_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cutting, "CUT", cutting.CUT)
    told = [sweep.described(cut, 132) for cut in sweep.CUTS]
    assert len({json.dumps(row) for row in told}) == len(sweep.CUTS)
    assert told[0] == {"programs": 264, "tile_bytes": 16384, "warps": 8}
    sweep.use(sweep.CUTS[-1])
    assert cutting.CUT.overlaps == 1
    found = [swept(shape, *one) for shape in sweep.SHAPES for one in enumerate(sweep.CUTS)]
    monkeypatch.setattr(rows, "read", lambda name: found)
    monkeypatch.setattr(rows, "origin", lambda row: "here")
    text = sweep.section(tmp_path)
    assert "| 264 x 16 KB, 8 warps, stages 2, overlaps 1: 1.5 |" in text
    assert text.count("| 1.0 (0.5 to 1.5) | 2.0 | 3.0 | 4.0 | 1.33 |") == len(sweep.SHAPES)
    for row in found:
        del row["quartiles"], row["peak_memory"], row["cut"]  # as older ones are
    assert sweep.section(tmp_path) == text.replace(" (0.5 to 1.5)", "")
