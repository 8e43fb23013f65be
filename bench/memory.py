"""Watch how much of a CUDA device's memory something takes; of a CPU nothing is known."""

from collections.abc import Callable, Mapping

import torch

from bench.timing import give_back


def peaks_of(calls: Mapping[str, Callable[[], object]], device: str) -> dict[str, int] | None:
    """Return the bytes that each call's tensors take at most, beside those that are there before.

    Its results, what it keeps for a backward pass, and what it needs meanwhile. Calls that ran
    before take what they take later: nothing is compiled or chosen any more.
    """
    if device != "cuda":
        return None
    found: dict[str, int] = {}
    for name, call in calls.items():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        found[name] = torch.cuda.max_memory_allocated() - before
    return found


class Peak:
    """Watch from now on how far the memory of a device grows."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        if self._cuda:
            give_back()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    def added(self) -> tuple[int, int] | tuple[None, None]:
        """Return the bytes that tensors took at most, and those that were taken from the device."""
        if not self._cuda:
            return None, None
        torch.cuda.synchronize()
        allocated, reserved = self._before
        peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return peaks[0] - allocated, peaks[1] - reserved
