"""Time contenders in turns and compare their medians: the statistics of every benchmark."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# What is timed returns its results, so that they can be compared too.
Contender = Callable[[], Sequence[Tensor]]
Quartiles = tuple[float, float]
Timer = Callable[[], float]  # measures one contender again: seconds a call

OUTGROWS_CACHES = 0.02  # seconds of a call


def wall_timer(call: Contender) -> Timer:
    """Time a call on the CPU; short ones are repeated until they take a fifth of a millisecond.

    Each time the call is made once before the clock starts: what the others left in the caches is
    not its own. Where it takes long its tensors outgrow them, and it is not.
    """

    def seconds(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats

    call()
    once = seconds(1)
    repeats = max(1, round(2e-4 / max(once, 1e-7)))

    def warm_seconds() -> float:
        call()
        return seconds(repeats)

    return warm_seconds if once < OUTGROWS_CACHES else lambda: seconds(repeats)


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


def quartiles(values: Sequence[float]) -> Quartiles | None:
    """Return the first and the third quartile; None of less than two values."""
    if len(values) < 2:
        return None
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def spreads(samples: Mapping[str, Sequence[float]]) -> dict[str, Quartiles | None]:
    """Return each contender's quartiles."""
    return {name: quartiles(values) for name, values in samples.items()}


def low_to_high(found: Sequence[float] | None, digits: int = 1, scale: float = 1e3) -> str:
    """Write quartiles for a table, seconds as milliseconds; nothing where there are none."""
    return "" if found is None else " to ".join(f"{scale * value:.{digits}f}" for value in found)


def geometric_mean(values: Sequence[float]) -> float:
    """Return the mean for ratios."""
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def verdict(ratio: float, target: float | None, slower: str = "slower") -> str:
    """Say whether a ratio over another's time is what was aimed at."""
    if ratio < 1:
        return slower
    return "faster" if target is None else "reached" if ratio >= target else "missed"


@dataclass(frozen=True)
class Comparison:
    """Hold the times of one case, in seconds, by contender; `ours` is the one under test.

    Attributes:
        seconds: medians.
        quartiles: the first and the third, of those whose spread is known.
    """

    seconds: dict[str, float]
    quartiles: dict[str, Quartiles | None] = field(default_factory=dict)

    def ratio(self, baseline: str) -> float:
        """Return how many times faster ours is."""
        return self.seconds[baseline] / self.seconds["ours"]

    def best_peer(self) -> str:
        """Return the fastest of the others."""
        return min(self.seconds.keys() - {"ours"}, key=lambda name: (self.seconds[name], name))


def compare(timers: dict[str, Timer], *, budget: float = 1.0, rounds: int = 15) -> Comparison:
    """Ask the timers in turns, at least `rounds` rounds and about `budget` seconds."""
    samples = take_turns(timers, rounds=rounds, budget=budget)
    return Comparison(medians(samples), spreads(samples))


def require_cuda() -> None:
    """End the program, saying why, where there is no CUDA device."""
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: torch.cuda.is_available() is False")


def give_back() -> None:
    """Return to the device what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
