"""Time on CUDA: many calls in one graph, so that the GPU's time is seen and not the host's."""

from collections.abc import Callable, Sequence

import torch

from bench.timing import Contender, Timer

CALLS = 8  # of a graph, at least
MAX_SETS = 64  # of inputs; what does not outgrow the cache by then is only measured warm


def graph_timer(calls: Sequence[Contender], *, keep: bool) -> Timer:
    """Make a timer of one graph that makes these calls, which have run before.

    Args:
        calls: one contender over different inputs, or the same several times.
        keep: give every call memory of its own for its results; else the next one reuses it.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph, kept = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph, stream=stream):
        for call in calls:
            results = call()
            if keep:
                kept.append(results)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def seconds() -> float:
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / len(calls)

    seconds()
    return seconds


def sets_past_cache(bytes_of_a_set: int) -> int:
    """Count the sets of inputs that are three times the second-level cache."""
    cache: int = torch.cuda.get_device_properties("cuda").L2_cache_size
    return -(-3 * cache // bytes_of_a_set)


def cuda_timers(
    first: dict[str, Contender], build: Callable[[], dict[str, Contender]]
) -> dict[str, dict[str, Timer]]:
    """State of the cache to a timer for each contender.

    Warm: one set of inputs again and again. Cold: sets in turns, each with results of its own, of
    which a call finds nothing in the second-level cache; left out where it would take too many.

    Args:
        first: the contenders over one set of inputs.
        build: makes them over a fresh one.
    """
    before = torch.cuda.memory_allocated()
    second = build()
    count = sets_past_cache(max(1, torch.cuda.memory_allocated() - before))
    timers = {"warm": {name: graph_timer([c] * CALLS, keep=False) for name, c in first.items()}}
    if count <= MAX_SETS:
        sets = [first, second, *(build() for _ in range(count - 2))][:count]
        turns = sets * -(-CALLS // count)
        timers["cold"] = {
            name: graph_timer([one[name] for one in turns], keep=True) for name in first
        }
    return timers
