"""Read spans of time and of steps as they are typed: ``2h``, ``1h30m``, ``500steps``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

TIMES = "such as 2h, 90m, 1h30m or 30s"
INTERVALS = "such as 500steps or 10min"

_SECONDS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"(\d+(?:\.\d+)?)\s*(d|h|min|m|sec|s)"
_STEPS = re.compile(r"(\d+)\s*steps?")


@dataclass(frozen=True)
class Interval:
    """Hold what lies between two events: a number of steps, or of seconds; the other is None."""

    steps: int | None = None
    seconds: float | None = None


def seconds_of(text: str) -> float:
    """Return the seconds of a span of time.

    Raises:
        ValueError: it is none, or is not above 0.
    """
    if not re.fullmatch(rf"(?:{_PART}\s*)+", text):
        raise ValueError(f"{text!r} is no time {TIMES}")
    found = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_PART, text))
    if found <= 0:
        raise ValueError(f"{text!r} is no time above 0")
    return found


def interval_of(text: str) -> Interval:
    """Return the interval that is typed as a number of steps or a span of time.

    Raises:
        ValueError: it is neither, or is not above 0.
    """
    if (steps := _STEPS.fullmatch(text)) and int(steps[1]) > 0:
        return Interval(steps=int(steps[1]))
    return Interval(seconds=seconds_of(text))


def time_option(value: Any) -> str | None:
    """Check the option ``time``.

    Raises:
        TypeError, ValueError: it is not valid.
    """
    return _checked("time", value, TIMES, seconds_of)


def save_every_option(value: Any) -> str | None:
    """Check the option ``save_every``.

    Raises:
        TypeError, ValueError: it is not valid.
    """
    return _checked("save_every", value, INTERVALS, interval_of)


def stall_option(value: Any) -> str:
    """Check the option ``stall``.

    Raises:
        TypeError, ValueError: it is not valid.
    """
    checked = _checked("stall", value, TIMES, seconds_of)
    if checked is None:
        raise TypeError(f"stall=None: expected a string {TIMES}")
    return checked


def _checked(name: str, value: Any, valid: str, read: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: expected a string {valid}, or None")
    try:
        read(value)
    except ValueError:
        raise ValueError(f"{name}={value!r}: expected {valid}") from None
    return value
