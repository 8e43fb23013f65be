"""Interleaved timing: a round runs every contender, so that a noisy moment hits them all."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# What is timed returns its results, so that they can be compared too.
Contender = Callable[[], Sequence[Tensor]]
# Seconds a call, of so many calls in a row.
Clock = Callable[[Contender, int], float]


@dataclass(frozen=True)
class Comparison:
    """Medians of one case, in seconds, by contender; `ours` is the one under test."""

    seconds: dict[str, float]

    def ratio(self, baseline: str) -> float:
        """How many times faster ours is."""
        return self.seconds[baseline] / self.seconds["ours"]


def wall_clock(call: Contender, repeats: int) -> float:
    """For the CPU."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def event_clock(call: Contender, repeats: int) -> float:
    """For CUDA: between two events on the stream, launches included where they are the slower."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / repeats


def cold_clock() -> Clock:
    """Events again, every call after four times the second-level cache was overwritten."""
    size = 4 * torch.cuda.get_device_properties("cuda").L2_cache_size
    flushed = torch.empty(size, dtype=torch.int8, device="cuda")

    def clock(call: Contender, repeats: int) -> float:
        total = 0.0
        for _ in range(repeats):
            flushed.zero_()
            total += event_clock(call, 1)
        return total / repeats

    return clock


def clocks(device: str) -> dict[str, Clock]:
    """State of the caches to the clock that measures in it."""
    if device == "cpu":
        return {"warm": wall_clock}
    return {"warm": event_clock, "cold": cold_clock()}


def compare(
    contenders: dict[str, Contender],
    *,
    clock: Clock = wall_clock,
    budget: float = 1.0,
    rounds: int = 15,
) -> Comparison:
    """Time the contenders in turns, at least `rounds` rounds and about `budget` seconds.

    Short calls are repeated within a round until it takes a tenth of a millisecond.
    """
    repeats: dict[str, int] = {}
    for name, call in contenders.items():
        call()
        repeats[name] = max(1, round(2e-4 / max(clock(call, 1), 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    began = time.perf_counter()
    while len(samples["ours"]) < rounds or time.perf_counter() - began < budget:
        for name, call in contenders.items():
            samples[name].append(clock(call, repeats[name]))
    return Comparison({name: statistics.median(values) for name, values in samples.items()})


def copy_bandwidth(device: str) -> float:
    """Bytes a second, read plus written, of copying between two warm float32 tensors."""
    elements = 1 << (24 if device == "cpu" else 28)
    source, target = torch.ones(elements, device=device), torch.empty(elements, device=device)
    copy: dict[str, Contender] = {"ours": lambda: [target.copy_(source)]}
    comparison = compare(copy, clock=clocks(device)["warm"], budget=0.5)
    return 8 * elements / comparison.seconds["ours"]
