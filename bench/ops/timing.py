"""Interleaved timing: a round runs every contender, so that a noisy moment hits them all."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Contender = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Medians of one case, in seconds, by contender; `ours` is the one under test."""

    seconds: dict[str, float]

    def ratio(self, baseline: str) -> float:
        """How many times faster ours is."""
        return self.seconds[baseline] / self.seconds["ours"]


def compare(
    contenders: dict[str, Contender], *, budget: float = 1.0, rounds: int = 15
) -> Comparison:
    """Time the contenders in turns, at least `rounds` rounds and about `budget` seconds.

    Short calls are repeated within a round until it takes a tenth of a millisecond.
    """
    repeats: dict[str, int] = {}
    for name, call in contenders.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, round(2e-4 / max(time.perf_counter() - start, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    began = time.perf_counter()
    while len(samples["ours"]) < rounds or time.perf_counter() - began < budget:
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.perf_counter() - start) / repeats[name])
    return Comparison({name: statistics.median(values) for name, values in samples.items()})


def copy_bandwidth(elements: int = 1 << 24) -> float:
    """Bytes a second, read plus written, of copying between two warm float32 tensors."""
    source, target = torch.ones(elements), torch.empty(elements)
    comparison = compare({"ours": lambda: target.copy_(source)}, budget=0.5)
    return 8 * elements / comparison.seconds["ours"]
