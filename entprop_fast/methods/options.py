"""Checks of a method's settings: an error names the option, its value and what is valid."""

import math
from collections.abc import Sequence


def check_number(
    name: str,
    value: object,
    *,
    low: float,
    open_low: bool = False,
    high: float = math.inf,
    open_high: bool = False,
) -> float:
    """A finite float in [low, high], without low where `open_low`, without high where `open_high`.

    Raises:
        TypeError: not a number.
        ValueError: outside the interval, infinite or NaN.
    """
    open_high = open_high or high == math.inf
    valid = f"a number in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected {valid}")
    inside = low < value if open_low else low <= value
    inside = inside and (value < high if open_high else value <= high)
    if not inside:  # NaN neither
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
