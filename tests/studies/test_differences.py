from __future__ import annotations

import math

import pytest

from entprop_fast.studies.differences import (
    Difference,
    against_baseline,
    baseline_of,
    difference_in,
    paired,
    verdict,
)
from entprop_fast.studies.form import Row

# Two-sided 95 % quantiles of Student's t, as printed in tables.
T_2, T_2_OF_2 = 4.3027, 6.2053  # 2 degrees of freedom, for one interval and for one of two


def test_the_interval_is_students() -> None:
    found = paired([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])  # differences 1, 2, 3: deviation 1
    assert found.mean == 2.0
    assert found.low == pytest.approx(2 - T_2 / math.sqrt(3), abs=1e-4)
    assert found.high == pytest.approx(2 + T_2 / math.sqrt(3), abs=1e-4)
    assert not found.clear


def test_several_intervals_are_wider() -> None:
    found = paired([3.0, 5.0, 7.0], [2.0, 3.0, 4.0], comparisons=2)
    assert found.high == pytest.approx(2 + T_2_OF_2 / math.sqrt(3), abs=1e-4)


def test_pairing_takes_out_what_the_seeds_share() -> None:
    assert paired([10.0, 50.0, 90.1], [9.0, 49.0, 89.0]).clear
    assert not paired([10.0, 50.0, 90.1], [49.0, 9.0, 89.0]).clear


def test_a_single_seed_is_never_clear() -> None:
    found = paired([90.0], [10.0])
    assert found == Difference(80.0, None, None) and not found.clear
    assert verdict(found) == "no clear difference, +80.0 (a single seed has no interval)"


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.1, 4.0, "higher"),
        (-4.0, -0.1, "lower"),
        (-0.1, 4.0, "no clear difference"),
        (0.0, 4.0, "no clear difference"),
        (-4.0, 0.0, "no clear difference"),
    ],
)
def test_the_word_is_the_intervals(low: float, high: float, word: str) -> None:
    assert verdict(Difference((low + high) / 2, low, high)).partition(",")[0] == word


def test_a_value_that_rounds_to_0_has_no_minus() -> None:
    assert verdict(Difference(-0.01, -1.0, 1.0)).endswith("+0.0 (−1.0 to +1.0)")


def test_variants_are_grouped_by_their_verdict() -> None:
    def row(name: str, cells: Difference | None) -> Row:
        empty: Row = {"difference": None, "low": None, "high": None}
        return {"variant": name, **(cells.cells() if cells else empty)}

    rows = [
        row("up", Difference(2.0, 1.0, 3.0)),
        row("base", None),
        row("down", Difference(-2.0, -3.0, -1.0)),
        row("same", Difference(1.0, -1.0, 3.0)),
        row("up too", Difference(4.0, 3.0, 5.0)),
    ]
    assert baseline_of(rows)["variant"] == "base"
    assert difference_in(rows[0]) == Difference(2.0, 1.0, 3.0)
    assert against_baseline(rows) == (
        "higher: up +2.0 (+1.0 to +3.0), up too +4.0 (+3.0 to +5.0); "
        "lower: down −2.0 (−3.0 to −1.0); no clear difference: same +1.0 (−1.0 to +3.0)"
    )
