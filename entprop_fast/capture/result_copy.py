"""Copy a step's results out of a graph's memory in one launch."""

from typing import Generic, TypeVar

import torch
from torch import Tensor

ResultT = TypeVar("ResultT", bound=tuple[Tensor, ...])

_SLOT = 8  # bytes, so that every dtype is aligned


class ResultCopy(Generic[ResultT]):
    """A copy of a result in one buffer, written when this is made (so inside a capture).

    Args:
        result: a named tuple of 0-dim tensors on one device, of at most 8 bytes each.
    """

    def __init__(self, result: ResultT) -> None:
        self._kind = type(result)
        self._places: list[int] = [0] * len(result)  # of each value, among those of `copy`
        self._spans: list[tuple[torch.dtype, int, int]] = []  # dtype, bytes [start, stop)
        size = _SLOT * len(result)
        self._buffer = torch.empty(size, dtype=torch.uint8, device=result[0].device)
        taken = 0  # slots
        for dtype in dict.fromkeys(value.dtype for value in result):
            positions = [i for i, value in enumerate(result) if value.dtype == dtype]
            start, stop = _SLOT * taken, _SLOT * taken + dtype.itemsize * len(positions)
            span = self._buffer[start:stop].view(dtype)
            torch.stack([result[i].detach() for i in positions], out=span)
            self._spans.append((dtype, start, stop))
            for i in positions:
                self._places[i] = taken
                taken += 1

    def copy(self) -> ResultT:
        """Return the result in memory of its own, which no later step overwrites."""
        fresh = self._buffer.clone()
        values: list[Tensor] = []
        for dtype, start, stop in self._spans:
            values += fresh[start:stop].view(dtype).unbind()
        return self._kind(*(values[place] for place in self._places))
