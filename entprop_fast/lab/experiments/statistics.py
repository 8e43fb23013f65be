"""Compute paired differences and their uncertainty, for comparisons, studies and bench.

Every figure is None where the data do not give it: a deviation of one value, a test of one pair or
of differences that are all equal. Two seeds with the same gain are no evidence that a third would
have it, however small their deviation.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy import stats

from entprop_fast.lab.evaluation.intervals import CONFIDENCE

TEST = "paired t-test"
CORRECTION = "Holm-corrected"
SIGNIFICANCE = 0.05
UNCLEAR = "no clear difference"

_ROUNDING = 1e-12  # of the largest value: a smaller deviation is that of floats that are equal


@dataclass(frozen=True)
class Spread:
    """Hold mean and standard deviation (n - 1) of `count` values."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """Hold paired differences to a baseline.

    Attributes:
        mean: of the differences.
        deviation: their standard deviation (n - 1).
        low, high: the confidence interval of the mean, from Student's t.
        p: two-sided, of the paired t-test.
        corrected_p: p after Holm's correction over the rows compared.
        wins: pairs in which the row is ahead of the baseline.
        count: pairs.
        left_out: values of either side without a finite partner.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    p: float | None
    wins: int
    count: int
    corrected_p: float | None = None
    left_out: int = 0

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below `SIGNIFICANCE`."""
        return self.verdict != UNCLEAR

    @property
    def verdict(self) -> str:
        """`verdict` on the mean and the corrected p."""
        return verdict(self.mean, self.corrected_p)


def verdict(mean: float, corrected_p: float | None) -> str:
    """Return ``higher``, ``lower``, or `UNCLEAR`, also where there is no p."""
    if corrected_p is None or not corrected_p < SIGNIFICANCE:
        return UNCLEAR
    return "higher" if mean > 0 else "lower"


def spread(values: Sequence[float]) -> Spread:
    """Return mean and deviation of at least one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, len(values))


def paired(row: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Compare ``row - baseline``, both by seed, over the pairs that both have; None without any.

    A value that is NaN or infinite has no pair.
    """
    both = [(row[seed], baseline[seed]) for seed in row if seed in baseline]
    pairs = [pair for pair in both if all(map(math.isfinite, pair))]
    if not pairs:
        return None
    differences = [one - other for one, other in pairs]
    found, low, high, p = spread(differences), None, None, None
    largest = max(abs(value) for pair in pairs for value in pair)
    if found.deviation is not None and found.deviation > _ROUNDING * largest:
        test = stats.ttest_1samp(differences, 0.0)
        interval = test.confidence_interval(CONFIDENCE)
        low, high, p = float(interval.low), float(interval.high), float(test.pvalue)
    return Difference(
        mean=found.mean,
        deviation=found.deviation,
        low=low,
        high=high,
        p=p,
        wins=sum(one > 0 for one in differences),
        count=len(pairs),
        left_out=len(row.keys() | baseline.keys()) - len(pairs),
    )


def corrected(differences: Mapping[str, Difference]) -> dict[str, Difference]:
    """Correct by Holm over the differences that have a p."""
    after = holm([one.p for one in differences.values()])
    return {
        name: replace(one, corrected_p=p)
        for (name, one), p in zip(differences.items(), after, strict=True)
    }


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Correct p values by Holm: the i-th smallest of m times m - i + 1, never falling, to 1.

    None stays None and does not count.
    """
    tested = sorted((p, index) for index, p in enumerate(ps) if p is not None)
    after: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, index) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        after[index] = highest
    return after
