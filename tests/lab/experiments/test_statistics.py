from __future__ import annotations

import statistics as by_hand

import numpy as np
import pytest
from scipy import stats

from entprop_fast.lab.experiments.statistics import (
    Difference,
    corrected,
    holm,
    paired,
    spread,
    verdict,
)


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_paired_differences_agree_with_scipy(count: int) -> None:
    random = np.random.default_rng(count)
    row = dict(enumerate(random.normal(71, 2, count).tolist()))
    baseline = dict(enumerate(random.normal(70, 2, count).tolist()))
    found = paired(row, baseline)
    assert found is not None
    theirs = stats.ttest_rel(list(row.values()), list(baseline.values()))
    interval = theirs.confidence_interval(0.95)
    differences = [row[seed] - baseline[seed] for seed in row]
    assert found.mean == pytest.approx(by_hand.mean(differences), rel=1e-12)
    assert found.deviation == pytest.approx(by_hand.stdev(differences), rel=1e-12)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert (found.wins, found.count) == (sum(one > 0 for one in differences), count)


def test_a_paired_test_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, t = 2 sqrt(3) with 2 degrees of freedom, for which
    # the two-sided p is 1 - t / sqrt(t^2 + 2) and the 97.5 % quantile is 4.302653.
    found = paired({0: 11.0, 1: 12.0, 2: 13.0}, {0: 10.0, 1: 10.0, 2: 10.0})
    assert found is not None and found.p is not None and found.high is not None
    assert found.p == pytest.approx(1 - (12 / 14) ** 0.5)
    assert found.high - found.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-6)


def test_holm_by_hand() -> None:
    # Sorted .005 x 4, .01 x 3, .03 x 2, .04 x 1 = .02, .03, .06, .04, which may not fall.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_rows_without_a_test_do_not_count_in_the_correction() -> None:
    def difference(p: float | None) -> Difference:
        return Difference(1.0, 1.0, 0.0, 2.0, p, 1, 2)

    found = corrected({"a": difference(0.02), "b": difference(None), "c": difference(0.03)})
    assert [found[name].corrected_p for name in "abc"] == [0.04, None, 0.04]
    assert [found[name].significant for name in "abc"] == [True, False, True]


@pytest.mark.parametrize("base", [0.3, 70.1, 1e-6, 7e5])
@pytest.mark.parametrize("gain", [1.0, -1.0, 0.1, 0.0])
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_one_seed_or_equal_differences_give_no_test(seeds: int, gain: float, base: float) -> None:
    """FOUND W12: two seeds with the same gain, whatever rounding leaves of their deviation."""
    others = {seed: base * (1 + seed) for seed in range(seeds)}
    found = paired({seed: one + gain for seed, one in others.items()}, others)
    assert found is not None and found.mean == pytest.approx(gain, abs=1e-9)
    assert (found.p, found.low, found.high, found.count) == (None, None, None, seeds)
    assert corrected({"a": found})["a"].verdict == "no clear difference"


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
def test_the_verdict_is_the_corrected_ps(mean: float, p: float | None, expected: str) -> None:
    assert verdict(mean, p) == expected


def test_spread() -> None:
    one, three = spread([5.0]), spread([1.0, 2.0, 6.0])
    assert (one.mean, one.deviation, one.count) == (5.0, None, 1)
    assert (three.mean, three.deviation) == pytest.approx((3.0, 7**0.5))


def test_what_is_not_finite_has_no_partner() -> None:
    """FOUND W12: NaN, infinite and missing seeds are left out, and counted."""
    nan, inf = float("nan"), float("inf")
    found = paired({0: 5.0, 1: nan, 2: 7.5, 3: 8.0}, {0: 4.0, 1: 4.0, 2: inf, 3: 5.0, 4: 1.0})
    assert found is not None
    assert (found.mean, found.count, found.left_out) == (2.0, 2, 3)
    assert paired({0: nan}, {0: 1.0}) is None
