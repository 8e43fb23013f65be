"""Means, paired differences and their uncertainty; all tests are paired by seed.

Every figure is None where the data do not give it: a deviation of one value, a test of differences
that do not vary.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy import special

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05

_ROUNDING = 1e-9  # percent: a smaller deviation is that of floats that should be equal


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of `count` values."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """Paired differences to a baseline.

    Attributes:
        mean: of the differences.
        deviation: their standard deviation (n - 1).
        low, high: the confidence interval of the mean, from Student's t.
        p: two-sided, of the paired t-test.
        corrected_p: p after Holm's correction over the rows compared.
        wins: pairs in which the row is ahead of the baseline.
        count: pairs.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    p: float | None
    wins: int
    count: int
    corrected_p: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below `SIGNIFICANCE`."""
        return self.corrected_p is not None and self.corrected_p < SIGNIFICANCE


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of at least one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, len(values))


def paired(row: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """The differences ``row - baseline`` of the seeds that both have; None without any."""
    differences = [value - baseline[seed] for seed, value in row.items() if seed in baseline]
    if not differences:
        return None
    found, count = spread(differences), len(differences)
    low = high = p = None
    if found.deviation is not None and found.deviation > _ROUNDING:
        error = found.deviation / math.sqrt(count)
        half = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
        low, high = found.mean - half, found.mean + half
        p = 2 * float(special.stdtr(count - 1, -abs(found.mean) / error))
    wins = sum(one > 0 for one in differences)
    return Difference(found.mean, found.deviation, low, high, p, wins, count)


def corrected(differences: Mapping[str, Difference]) -> dict[str, Difference]:
    """The same with Holm's correction over those that have a p."""
    tested = {name: one.p for name, one in differences.items() if one.p is not None}
    after = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {name: replace(one, corrected_p=after.get(name)) for name, one in differences.items()}


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the i-th smallest of m times m - i + 1, never falling, to 1."""
    after, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        after[index] = highest
    return after
