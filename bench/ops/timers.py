"""Choose the timers of a device, and measure its copy bandwidth."""

from collections.abc import Callable
from functools import cache

import torch

from bench.ops.graphs import cuda_timers
from bench.timing import Contender, Timer, compare, wall_timer


def timers_of(
    device: str, first: dict[str, Contender], build: Callable[[], dict[str, Contender]]
) -> dict[str, dict[str, Timer]]:
    """State of the caches to a timer for each contender.

    Args:
        device: of their tensors.
        first: the contenders over one set of inputs.
        build: makes them over a fresh one.
    """
    if device == "cuda":
        return cuda_timers(first, build)
    return {"warm": {name: wall_timer(call) for name, call in first.items()}}


@cache
def copy_bandwidth(device: str) -> float:
    """Measure bytes a second, read plus written, of copying float32 tensors that no cache holds."""
    elements = 1 << (24 if device == "cpu" else 28)

    def build() -> dict[str, Contender]:
        source, target = torch.ones(elements, device=device), torch.empty(elements, device=device)
        return {"ours": lambda: [target.copy_(source)]}

    comparison = compare(timers_of(device, build(), build)["warm"], budget=0.5)
    return 8 * elements / comparison.seconds["ours"]
