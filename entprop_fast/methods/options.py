"""Checks of a method's settings: an error names the option, its value and what is valid."""

import math
from collections.abc import Sequence


def check_number(
    name: str, value: object, *, low: float, open_low: bool = False, high: float = math.inf
) -> float:
    """A finite float in [low, high], or (low, high] with `open_low`.

    Raises:
        TypeError: not a number.
        ValueError: outside the interval, infinite or NaN.
    """
    bracket = "(" if open_low else "["
    valid = f"a number in {bracket}{low:g}, {high:g}{')' if high == math.inf else ']'}"
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected {valid}")
    inside = low < value <= high if open_low else low <= value <= high
    if not (inside and math.isfinite(value)):
        raise ValueError(f"{name}={value!r}: expected {valid}")
    return float(value)


def check_count(name: str, value: object, *, low: int = 1) -> int:
    """An int of at least `low`.

    Raises:
        TypeError: not an int.
        ValueError: smaller.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected an int of at least {low}")
    if value < low:
        raise ValueError(f"{name}={value!r}: expected an int of at least {low}")
    return value


def check_instance(name: str, value: object, kind: type) -> None:
    """An instance of `kind`.

    Raises:
        TypeError: something else.
    """
    if not isinstance(value, kind):
        expected = f"{kind.__module__}.{kind.__name__}"
        raise TypeError(f"{name} is a {type(value).__name__}: expected a {expected}")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """One of `choices`.

    Raises:
        ValueError: something else.
    """
    if not any(value is choice or value == choice for choice in choices):
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}")


def check_flag(name: str, value: object) -> bool:
    """A bool.

    Raises:
        TypeError: something else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected True or False")
    return value
