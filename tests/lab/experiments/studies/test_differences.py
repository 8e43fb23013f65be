from __future__ import annotations

import math

import pytest

from entprop_fast.lab.experiments.comparison.method_rows import method_rows, statement
from entprop_fast.lab.experiments.statistics import holm
from entprop_fast.lab.experiments.studies.differences import (
    NO_CELLS,
    against_baseline,
    baseline_of,
    corrected,
    paired,
    verdict,
    word,
)
from entprop_fast.lab.experiments.studies.form import Row
from entprop_fast.lab.experiments.studies.variant_scores import score_table

from .conftest import lead

T_2 = 4.3027  # two-sided 95 % quantile of Student's t, 2 degrees of freedom, as printed in tables


def cells(values: list[float], others: list[float]) -> Row:
    """The cells of a table's only row."""
    return corrected([paired(values, others)])[0]


def test_the_interval_is_students() -> None:
    found = cells([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])  # differences 1, 2, 3: deviation 1
    assert found["difference"] == 2.0 and found["pairs"] == 3
    assert found["low"] == pytest.approx(2 - T_2 / math.sqrt(3), abs=1e-4)
    assert found["high"] == pytest.approx(2 + T_2 / math.sqrt(3), abs=1e-4)
    assert word(found) == "no clear difference"


def test_p_is_corrected_over_the_rows() -> None:
    rows = [paired([3.0, 5.0, 7.0 + i], [2.0, 3.0, 4.0]) for i in range(3)] + [NO_CELLS]
    ps = [None if row["p"] is None else float(row["p"]) for row in rows]
    assert [row["p"] for row in corrected(rows)] == holm(ps) != ps


def test_pairing_takes_out_what_the_seeds_share() -> None:
    assert word(cells([10.0, 50.0, 90.1], [9.0, 49.0, 89.0])) == "higher"
    assert word(cells([10.0, 50.0, 90.1], [49.0, 9.0, 89.0])) == "no clear difference"


def test_a_single_seed_is_never_clear() -> None:
    found = cells([90.0], [10.0])
    assert verdict(found) == "no clear difference, +80.0 (a single seed has no interval)"


@pytest.mark.parametrize("base", [0.3, 70.1, 1e-6])
@pytest.mark.parametrize("gain", [1.0, -1.0, 0.1, 0.0])
@pytest.mark.parametrize("seeds", [2, 5])
def test_equal_differences_support_no_claim(seeds: int, gain: float, base: float) -> None:
    """FOUND W12: two seeds with the same gain."""
    others = [base * (1 + seed) for seed in range(seeds)]
    found = cells([one + gain for one in others], others)
    assert found["low"] is None and found["p"] is None
    said = verdict(found)
    assert said.startswith("no clear difference, ")
    assert said.endswith(f" ({seeds} equal differences have no interval)")


@pytest.mark.parametrize(
    "hscores", [(71.0, 72.0), (71.1, 71.9), (75.2, 75.8), (65.0, 66.1), (71.0,)]
)
def test_a_study_and_a_comparison_say_the_same(hscores: tuple[float, ...]) -> None:
    """FOUND W12: one statistic in one product, whatever the seeds."""
    values = {"base": (70.0, 71.0), "other": hscores, "third": (60.0, 61.01)}
    records = {
        name: [
            {"sa": h, "ra": h, "hscore": h, "cost": 1.0, "seconds": 1.0, "corruption_source": ""}
            for h in found[: len(hscores)]
        ]
        for name, found in values.items()
    }
    study = score_table(records, "base").rows[1]
    compared = method_rows({name: dict(enumerate(runs)) for name, runs in records.items()}, "base")
    theirs = compared[1].differences["hscore"]
    assert [theirs.mean, theirs.low, theirs.high] == [
        study[n] for n in ("difference", "low", "high")
    ]
    assert (theirs.corrected_p, theirs.verdict) == (study["p"], word(study))
    claimed = [f"{one}: other" in statement(compared, "base") for one in ("higher", "lower")]
    assert claimed == [word(study) == one for one in ("higher", "lower")]


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="row"):
        paired([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no pair"):
        paired([math.nan], [1.0])


def test_a_seed_that_is_nan_is_no_pair() -> None:
    """FOUND W12: its neighbours."""
    found = paired([3.0, math.nan, 5.0, 7.0], [2.0, 1.0, 3.0, 4.0])
    assert found == paired([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("mean", "p", "expected"),
    [
        (2.0, 0.049, "higher"),
        (-2.0, 0.049, "lower"),
        (2.0, 0.05, "no clear difference"),
        (-2.0, 0.3, "no clear difference"),
        (2.0, None, "no clear difference"),
    ],
)
def test_the_word_is_the_corrected_ps(mean: float, p: float | None, expected: str) -> None:
    assert word(lead(mean, 1.0, 3.0) | {"p": p}) == expected


def test_a_value_that_rounds_to_0_has_no_minus() -> None:
    assert verdict(lead(-0.01, -1.0, 1.0)).endswith("+0.0 (−1.0 to +1.0)")


def test_variants_are_grouped_by_their_verdict() -> None:
    rows: list[Row] = [
        {"variant": "up", **lead(2.0, 1.0, 3.0)},
        {"variant": "base", **NO_CELLS},
        {"variant": "down", **lead(-2.0, -3.0, -1.0)},
        {"variant": "same", **lead(1.0, -1.0, 3.0)},
        {"variant": "up too", **lead(4.0, 3.0, 5.0)},
    ]
    assert baseline_of(rows)["variant"] == "base"
    assert against_baseline(rows) == (
        "higher: up +2.0 (+1.0 to +3.0), up too +4.0 (+3.0 to +5.0); "
        "lower: down −2.0 (−3.0 to −1.0); no clear difference: same +1.0 (−1.0 to +3.0)"
    )
