"""Differences between paired runs, and the words that they support."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy import special

from entprop_fast.studies.form import Cell, Row, number

CONFIDENCE = 0.95


class Difference(NamedTuple):
    """A mean difference and its confidence interval; a single pair has none."""

    mean: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval lies on one side of 0."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0

    def cells(self) -> dict[str, Cell]:
        """Its three columns."""
        return {"difference": self.mean, "low": self.low, "high": self.high}


NO_CELLS: dict[str, Cell] = {"difference": None, "low": None, "high": None}


def paired(values: Sequence[float], others: Sequence[float], *, comparisons: int = 1) -> Difference:
    """``values - others``, pair by pair (seed by seed), with Student's t interval.

    Args:
        values: one of each pair.
        others: the other.
        comparisons: intervals of the same table; together they hold with `CONFIDENCE`
            (Bonferroni).

    Raises:
        ValueError: lengths that differ, or no pair.
    """
    differences = [a - b for a, b in zip(values, others, strict=True)]
    mean = statistics.fmean(differences)
    pairs = len(differences)
    if pairs == 1:
        return Difference(mean, None, None)
    quantile = float(special.stdtrit(pairs - 1, 1 - (1 - CONFIDENCE) / (2 * comparisons)))
    half = quantile * statistics.stdev(differences) / math.sqrt(pairs)
    return Difference(mean, mean - half, mean + half)


def difference_in(row: Row) -> Difference:
    """The difference that a row holds."""
    bounds = [row[name] for name in ("low", "high")]
    low, high = (None if value is None else float(value) for value in bounds)
    return Difference(number(row, "difference"), low, high)


def in_words(difference: Difference, digits: int = 1) -> str:
    """``+3.1 (1.2 to 5.0)``; the caller says that brackets hold the interval."""
    value = _signed(difference.mean, digits)
    if difference.low is None or difference.high is None:
        return f"{value} (a single seed has no interval)"
    low, high = _signed(difference.low, digits), _signed(difference.high, digits)
    return f"{value} ({low} to {high})"


def verdict(difference: Difference, digits: int = 1) -> str:
    """``higher, +3.1 (...)``, ``lower, ...`` or ``no clear difference, ...``."""
    word = "no clear difference"
    if difference.clear:
        word = "higher" if difference.mean > 0 else "lower"
    return f"{word}, {in_words(difference, digits)}"


def against_baseline(rows: Sequence[Row], digits: int = 1) -> str:
    """Which variants are higher than the baseline, which lower, and which not clearly either.

    Args:
        rows: with ``variant`` and a difference; the baseline is the row without one.
        digits: behind the point.
    """
    groups: dict[str, list[str]] = {"higher": [], "lower": [], "no clear difference": []}
    for row in rows:
        if row["difference"] is None:
            continue
        difference = difference_in(row)
        name = verdict(difference).partition(",")[0]
        groups[name].append(f"{row['variant']} {in_words(difference, digits)}")
    return "; ".join(f"{name}: {', '.join(found)}" for name, found in groups.items() if found)


def counted(rows: Sequence[Row], up: str, down: str, what: str) -> str:
    """In how many rows the value is clearly above what it is compared with, or below.

    Args:
        rows: with a difference each.
        up: the word for above.
        down: the word for below.
        what: the rows are.
    """
    differences = [difference_in(row) for row in rows]
    above = sum(one.clear and one.mean > 0 for one in differences)
    below = sum(one.clear and one.mean < 0 for one in differences)
    unclear = len(rows) - above - below
    parts = [(above, up), (below, down), (unclear, "no clear difference")]
    words = ", ".join(f"{word} in {count} of {len(rows)} {what}" for count, word in parts if count)
    mean = statistics.fmean(one.mean for one in differences)
    return f"{words} (mean over {what} {_signed(mean, 2)})"


def baseline_of(rows: Sequence[Row]) -> Row:
    """The row that the others are compared with."""
    return next(row for row in rows if row["difference"] is None)


def _signed(value: float, digits: int) -> str:
    # −0.0 would read as a direction that the number does not have.
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")
