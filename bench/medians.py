"""Take turns, compare medians: the statistics of every benchmark."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Timer = Callable[[], float]  # measures one contender again: seconds a call


def take_turns(
    timers: Mapping[str, Timer], *, rounds: int, budget: float = 0.0
) -> dict[str, list[float]]:
    """Ask the timers in turns, so that a noisy moment hits them all.

    Args:
        timers: of the contenders, by name.
        rounds: at least so many.
        budget: seconds to go on for.
    """
    samples: dict[str, list[float]] = {name: [] for name in timers}
    began, taken = time.perf_counter(), 0
    while taken < rounds or time.perf_counter() - began < budget:
        for name, timer in timers.items():
            samples[name].append(timer())
        taken += 1
    return samples


def medians(samples: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return each contender's median."""
    return {name: statistics.median(values) for name, values in samples.items()}


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile."""
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def geometric_mean(values: Sequence[float]) -> float:
    """Return the mean for ratios."""
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def verdict(ratio: float, target: float | None, slower: str = "slower") -> str:
    """Say whether a ratio over another's time is what was aimed at."""
    if ratio < 1:
        return slower
    return "faster" if target is None else "reached" if ratio >= target else "missed"
