"""Write numbers as every table and sentence shows them; what there is none of is a dash."""

from __future__ import annotations

NOTHING = "–"


def number(value: float | None, digits: int = 1) -> str:
    """Return ``81.3``."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def three_digits(value: float) -> str:
    """Return ``81.3``, ``5.25`` or ``0.065``."""
    size = abs(value)
    return number(value, 1 if size >= 10 else 2 if size >= 1 else 3)


def difference(value: float | None, digits: int = 1) -> str:
    """Return ``+3.1``."""
    return NOTHING if value is None else f"{value:+.{digits}f}"


def plus_minus(mean: float, deviation: float | None) -> str:
    """Return ``80.3 ± 1.5``."""
    return number(mean) if deviation is None else f"{number(mean)} ± {number(deviation)}"


def probability(p: float | None) -> str:
    """Return ``0.03``, ``0.0007`` or ``< .0001``."""
    if p is None:
        return NOTHING
    return "< .0001" if p < 1e-4 else number(p, 4 if p < 0.01 else 2)


def of_column(name: str, value: object) -> str:
    """Return a cell of the column `name`: one decimal, or two of a ``cost``."""
    if value is None:
        return NOTHING
    if not isinstance(value, float):
        return str(value)
    return number(value, 2 if name.startswith("cost") else 1)
