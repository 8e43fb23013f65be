"""Put a study's rows beside their baseline: cells of paired differences, and words from cells."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from entprop_fast.lab.evaluation.intervals import CONFIDENCE
from entprop_fast.lab.experiments import statistics as paired_statistics
from entprop_fast.lab.experiments.statistics import (
    CORRECTION,
    SIGNIFICANCE,
    UNCLEAR,
    holm,
)
from entprop_fast.lab.experiments.studies.form import Cell, Row, number
from entprop_fast.lab.report.numbers import difference

HOW = f"{100 * CONFIDENCE:.0f} % interval, clear where {CORRECTION} p < {SIGNIFICANCE:g}"

NO_CELLS: dict[str, Cell] = dict.fromkeys(("difference", "low", "high", "p", "pairs"))


def paired(values: Sequence[float], others: Sequence[float]) -> dict[str, Cell]:
    """Fill the cells of ``values - others``, seed by seed; `corrected` then takes its p.

    Raises:
        ValueError: lengths that differ, or no pair of finite values.
    """
    if len(values) != len(others):
        raise ValueError(f"{len(values)} values and {len(others)} others are no pairs")
    found = paired_statistics.paired(dict(enumerate(values)), dict(enumerate(others)))
    if found is None:
        raise ValueError(f"no pair of finite values in {list(values)} and {list(others)}")
    return {
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "pairs": found.count,
    }


def corrected(rows: Sequence[Row]) -> list[Row]:
    """Correct the rows' p by Holm, over all of them; those without a p do not count."""
    after = holm([None if row["p"] is None else number(row, "p") for row in rows])
    return [row | {"p": p} for row, p in zip(rows, after, strict=True)]


def in_words(row: Row, digits: int = 1) -> str:
    """Return ``+3.1 (+1.2 to +5.0)``; the caller says that brackets hold the interval."""
    value = _signed(number(row, "difference"), digits)
    if row["low"] is None or row["high"] is None:
        pairs = row["pairs"]
        why = "a single seed has" if pairs == 1 else f"{pairs} equal differences have"
        return f"{value} ({why} no interval)"
    low, high = (_signed(number(row, name), digits) for name in ("low", "high"))
    return f"{value} ({low} to {high})"


def word(row: Row) -> str:
    """Return ``higher``, ``lower`` or ``no clear difference``."""
    p = None if row["p"] is None else number(row, "p")
    return paired_statistics.verdict(number(row, "difference"), p)


def verdict(row: Row, digits: int = 1) -> str:
    """Return ``higher, +3.1 (...)``, ``lower, ...`` or ``no clear difference, ...``."""
    return f"{word(row)}, {in_words(row, digits)}"


def against_baseline(rows: Sequence[Row], digits: int = 1) -> str:
    """Say which variants are higher than the baseline, which lower, and which not clearly either.

    Args:
        rows: with ``variant`` and a difference; the baseline is the row without one.
        digits: behind the point.
    """
    groups: dict[str, list[str]] = {"higher": [], "lower": [], UNCLEAR: []}
    for row in rows:
        if row["difference"] is not None:
            groups[word(row)].append(f"{row['variant']} {in_words(row, digits)}")
    return "; ".join(f"{name}: {', '.join(found)}" for name, found in groups.items() if found)


def counted(rows: Sequence[Row], up: str, down: str, what: str) -> str:
    """Say in how many rows the value is clearly above what it is compared with, or below.

    Args:
        rows: with a difference each.
        up: the word for above.
        down: the word for below.
        what: the rows are.
    """
    words = {"higher": up, "lower": down, UNCLEAR: UNCLEAR}
    verdicts = [word(row) for row in rows]
    said = ", ".join(
        f"{name} in {count} of {len(rows)} {what}"
        for one, name in words.items()
        if (count := verdicts.count(one))
    )
    mean = statistics.fmean(number(row, "difference") for row in rows)
    return f"{said} (mean over {what} {_signed(mean, 2)})"


def baseline_of(rows: Sequence[Row]) -> Row:
    """Return the row that the others are compared with."""
    return next(row for row in rows if row["difference"] is None)


def _signed(value: float, digits: int) -> str:
    # −0.0 would read as a direction that the number does not have.
    return difference(round(value, digits) + 0.0, digits).replace("-", "−")
