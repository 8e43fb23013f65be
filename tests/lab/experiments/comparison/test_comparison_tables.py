from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from entprop_fast.lab.experiments.comparison.comparison_plot import draw_comparison
from entprop_fast.lab.experiments.comparison.comparison_tables import (
    cells,
    json_row,
    legend,
    markdown_table,
    terminal_tables,
)
from entprop_fast.lab.experiments.comparison.method_rows import (
    METRICS,
    MethodRow,
    method_rows,
    statement,
)
from entprop_fast.lab.experiments.runner import source_of
from entprop_fast.lab.experiments.statistics import Spread
from entprop_fast.lab.report.numbers import NOTHING
from entprop_fast.lab.training.errors import UsageError

BASE = (70.0, 71.5, 69.2)
GAINS = {"far": (10.0, 10.4, 9.7), "near": (0.4, -0.9, 0.6), "worse": (-8.0, -8.3, -7.9)}


def summaries() -> dict[str, dict[int, dict[str, float]]]:
    gains = {"base": (0.0, 0.0, 0.0)} | GAINS
    return {
        name: {
            seed: {"hscore": b + g, "sa": b + g + 10, "ra": b + g - 10, "cost": 58, "seconds": 6}
            for seed, (b, g) in enumerate(zip(BASE, gain, strict=True))
        }
        for name, gain in gains.items()
    }


def rows(**failures: dict[int, str]) -> list[MethodRow]:
    return method_rows(summaries(), "base", failures)


def test_every_metric_is_compared_with_the_baseline() -> None:
    base, far, *_ = rows()
    assert base.differences == {} and set(far.differences) == set(METRICS)
    for metric in METRICS:
        assert far.differences[metric].mean == pytest.approx(np.mean(GAINS["far"]))
    # The smallest of three p's is multiplied by three.
    gain = far.differences["hscore"]
    assert gain.p is not None
    other = rows()[3].differences["hscore"]
    smallest = min((gain, other), key=lambda one: one.p or 1)
    assert smallest.corrected_p == pytest.approx(3 * (smallest.p or 0))


def test_the_statement_follows_the_table() -> None:
    said = statement(rows(), "base")
    assert "Highest mean Hscore: far, 80.3 %" in said
    assert "higher: far (+10.0); lower: worse (-8.1); no clear difference: near (+0.0)" in said
    changed = {name: runs for name, runs in summaries().items() if name != "far"}
    assert "far" not in statement(method_rows(changed, "base"), "base")
    assert "left out: 2" in statement(rows(near={3: "x", 4: "y"}), "base")


def test_one_seed_is_no_test() -> None:
    one_seed = {name: {0: runs[0]} for name, runs in summaries().items()}
    said = statement(method_rows(one_seed, "base"), "base")
    assert "Too few seeds, or no spread, for a test: far, near, worse" in said
    assert "Holm" not in said


def test_a_row_without_a_finished_run_says_so() -> None:
    found = method_rows(summaries() | {"broken": {}}, "base", {"broken": {0: "nan", 1: "nan"}})
    line = cells(found, "base")[-1]
    assert (line["Hscore"], line["seeds"]) == ("–", "0, 2 failed")
    assert json_row(found[-1])["failures"][1] == {"seed": 1, "error": "nan"}
    assert statement(method_rows({"broken": {}}, "broken"), "broken") == "No run finished."


def test_the_tables_hold_the_same_cells() -> None:
    found = rows()
    lines = cells(found, "base")
    assert lines[1]["Hscore"] == "80.3 ± 1.5" and lines[1]["Hscore − base's"] == "+10.0"
    markdown = markdown_table(found, "base", without=("seconds",)).splitlines()
    assert len(markdown) == 2 + len(found) and "seconds" not in markdown[0]
    assert markdown[3].startswith("| far | 90.3 ± 1.5 | 70.3 ± 1.5 | 80.3 ± 1.5 | +10.0 |")
    console = Console(width=80, record=True, file=io.StringIO())
    for table in terminal_tables(found, "base"):
        console.print(table)
    printed = console.export_text()
    wanted = {cell for line in lines for cell in line.values()} - {NOTHING}  # the baseline's own
    assert not [cell for cell in wanted if cell not in printed]
    json.dumps([json_row(row) for row in found], allow_nan=False)


def pixels(path: Path, shown: list[MethodRow], source: str = "") -> np.ndarray:
    draw_comparison(path, shown, source=source)
    return np.asarray(imread(path))


def test_the_picture_follows_the_rows(tmp_path: Path) -> None:
    found = rows()
    whole, fewer, again = (pixels(tmp_path / "p.png", one) for one in (found, found[:3], found))
    assert np.array_equal(whole, again) and not np.array_equal(whole, fewer)


def test_without_corruptions_the_rows_are_compared_by_sa(tmp_path: Path) -> None:
    nothing = {"ra": None, "hscore": None}
    found = method_rows(
        {name: {s: run | nothing for s, run in of.items()} for name, of in summaries().items()},
        "base",
    )
    assert set(found[1].scores) == {"sa"} == set(found[1].differences)
    line = cells(found, "base")[1]
    assert (line["SA"], line["RA"], line["Hscore"]) == ("90.3 ± 1.5", NOTHING, NOTHING)
    assert line["SA − base's"] == "+10.0"
    said = statement(found, "base")
    assert "Highest mean SA: far, 90.3 %" in said and "higher: far (+10.0)" in said
    assert "seeds with a higher SA" in legend("base", metric="sa", source="")
    assert legend("base", metric="sa", source="").endswith("Corruptions: none.")
    terminal_tables(found, "base")
    json.dumps([json_row(row) for row in found], allow_nan=False)
    narrow, wide = (pixels(tmp_path / "p.png", one, "generated") for one in (found, rows()))
    assert narrow.shape[1] < wide.shape[1]


def test_one_table_has_one_source_of_corrupted_images() -> None:
    found = {
        Path(f"vanilla-{seed}"): {"corruption_source": "generated (CIFAR-C's strengths, seed 0)"}
        for seed in (0, 1)
    }
    assert source_of(found) == "generated (CIFAR-C's strengths, seed 0)"
    found[Path("entprop-1")] = {"corruption_source": "official CIFAR-10-C"}
    with pytest.raises(UsageError, match="entprop-1: official CIFAR-10-C"):
        source_of(found)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cost", [1.92, 57.6, 100.0])
def test_rows_of_equal_cost_have_a_panel_of_cost(cost: float, tmp_path: Path) -> None:
    """Such as those of equal passes, on the logarithmic axis."""
    equal = [replace(row, cost=Spread(cost, 0.0, 3)) for row in rows()]
    picture = pixels(tmp_path / "equal.png", equal)
    right = picture[:, picture.shape[1] // 2 :, :3]
    assert (right.min(axis=2) < 0.5).any(axis=0).mean() > 0.8  # an axes as wide as its half
