"""Interleaved timing: a round runs every contender, so that a noisy moment hits them all."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

# What is timed returns its results, so that they can be compared too.
Contender = Callable[[], Sequence[Tensor]]
# Measures one contender again: seconds a call.
Timer = Callable[[], float]

OUTGROWS_CACHES = 0.02  # seconds of a call


@dataclass(frozen=True)
class Comparison:
    """Medians of one case, in seconds, by contender; `ours` is the one under test."""

    seconds: dict[str, float]

    def ratio(self, baseline: str) -> float:
        """How many times faster ours is."""
        return self.seconds[baseline] / self.seconds["ours"]

    def best_peer(self) -> str:
        """The fastest of the others."""
        return min(self.seconds.keys() - {"ours"}, key=lambda name: (self.seconds[name], name))


def wall_timer(call: Contender) -> Timer:
    """For the CPU; short calls are repeated until they take a fifth of a millisecond.

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


def compare(timers: dict[str, Timer], *, budget: float = 1.0, rounds: int = 15) -> Comparison:
    """Ask the timers in turns, at least `rounds` rounds and about `budget` seconds."""
    samples: dict[str, list[float]] = {name: [] for name in timers}
    began = time.perf_counter()
    while len(samples["ours"]) < rounds or time.perf_counter() - began < budget:
        for name, timer in timers.items():
            samples[name].append(timer())
    return Comparison({name: statistics.median(values) for name, values in samples.items()})
