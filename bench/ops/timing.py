"""Time contenders in turns."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from bench.medians import Timer, medians, take_turns

# What is timed returns its results, so that they can be compared too.
Contender = Callable[[], Sequence[Tensor]]

OUTGROWS_CACHES = 0.02  # seconds of a call


@dataclass(frozen=True)
class Comparison:
    """Hold the medians of one case, in seconds, by contender; `ours` is the one under test."""

    seconds: dict[str, float]

    def ratio(self, baseline: str) -> float:
        """Return how many times faster ours is."""
        return self.seconds[baseline] / self.seconds["ours"]

    def best_peer(self) -> str:
        """Return the fastest of the others."""
        return min(self.seconds.keys() - {"ours"}, key=lambda name: (self.seconds[name], name))


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


def compare(timers: dict[str, Timer], *, budget: float = 1.0, rounds: int = 15) -> Comparison:
    """Ask the timers in turns, at least `rounds` rounds and about `budget` seconds."""
    return Comparison(medians(take_turns(timers, rounds=rounds, budget=budget)))
