"""Combine gradients over processes in buckets, which all of them launch in the same order.

A bucket is a copy of some gradients, flat in a row: few launches, and its exchange goes on while
the next one is copied, or while the backward pass goes on. At most `IN_FLIGHT` of them exist.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from entprop_fast.torch_internals import copy_each

BUCKET_BYTES = 25 * 2**20  # as DistributedDataParallel has it
FIRST_BYTES = 2**20  # soon full, so that the network is soon at work
IN_FLIGHT = 3

Plan = tuple[tuple[int, ...], ...]  # of each bucket, the positions of its parameters


def plan(parameters: Sequence[Tensor], positions: Iterable[int]) -> Plan:
    """Divide parameters into buckets of one dtype and device, the last parameter first.

    That is about the order in which a backward pass reaches them, and it is the same in processes
    that have the same parameters, whatever runs there.

    Args:
        parameters: all of them.
        positions: of those that have a gradient, in any order.
    """
    buckets: list[list[int]] = []
    sizes: list[int] = []
    current: dict[tuple[torch.dtype, torch.device], int] = {}  # the bucket that is not full
    for position in sorted(positions, reverse=True):
        parameter = parameters[position]
        size = _bytes(parameter)
        kind = parameter.dtype, parameter.device
        place = current.get(kind)
        if place is None or sizes[place] + size > (BUCKET_BYTES if place else FIRST_BYTES):
            place = current[kind] = len(buckets)
            buckets.append([])
            sizes.append(0)
        buckets[place].append(position)
        sizes[place] += size
    return tuple(map(tuple, buckets))


class _Flight(NamedTuple):
    """One bucket on its way."""

    work: Any
    flat: Tensor
    targets: list[Tensor]  # gradients that get what comes back, and where it lies in `flat`
    sources: list[Tensor]


class Buckets:
    """One step's buckets on their way, in the order of their plan.

    Args:
        parameters: whose `.grad` is combined, in place.
        planned: the same in all processes.
        group: of the processes.
        divisor: of every gradient, before the sum.

    Attributes:
        launched: how many were.
    """

    def __init__(
        self, parameters: Sequence[Tensor], planned: Plan, group: Any, divisor: int
    ) -> None:
        self._learned, self._plan, self._group = parameters, planned, group
        self._divisor = divisor
        self._flying: deque[_Flight] = deque()
        self.launched = 0

    @property
    def next(self) -> tuple[int, ...] | None:
        """Return the positions of the next bucket's parameters; None when all are on their way."""
        return self._plan[self.launched] if self.launched < len(self._plan) else None

    def launch_without_waiting(self) -> bool:
        """Launch the next bucket, unless as many as may be are on their way."""
        while self._flying and self._flying[0].work.is_completed():
            self._collect()
        if len(self._flying) == IN_FLIGHT:
            return False
        self._launch()
        return True

    def finish(self) -> None:
        """Launch what is left and wait for all; the gradients are then those of all processes."""
        while self.next is not None:
            if len(self._flying) == IN_FLIGHT:
                self._collect()
            self._launch()
        while self._flying:
            self._collect()

    def abandon(self) -> None:
        """Launch what is left with zeros, so that no other process waits for it for ever.

        This one does not wait: `wait` does.
        """
        left = self._plan[self.launched :]
        largest = max(map(self._bytes, left), default=0)
        devices = {self._learned[bucket[0]].device for bucket in left}
        zeros = {one: torch.zeros(largest, dtype=torch.uint8, device=one) for one in devices}
        for bucket in left:  # all on the same memory: nobody reads it
            first = self._learned[bucket[0]]
            flat = zeros[first.device][: self._bytes(bucket)].view(first.dtype)
            self._send(flat, [], [])

    def wait(self) -> None:
        """Wait for what is on its way, and drop it."""
        while self._flying:
            self._flying.popleft().work.wait()

    def _bytes(self, bucket: Iterable[int]) -> int:
        return sum(map(_bytes, map(self._learned.__getitem__, bucket)))

    def _launch(self) -> None:
        some = [self._learned[position] for position in self._plan[self.launched]]
        targets: list[Tensor] = []
        sources: list[Tensor] = []
        only = some[0].grad if len(some) == 1 else None
        if only is not None and _dense(only) and only.stride() == some[0].stride():
            flat = only.detach().as_strided((only.numel(),), (1,))
        else:
            flat = some[0].new_empty(sum(map(Tensor.numel, some)))
            parts = map(_shaped, flat.split([one.numel() for one in some]), some)
            for parameter, part in zip(some, parts, strict=True):
                if parameter.grad is None:
                    part.zero_()
                else:
                    targets.append(parameter.grad.detach())
                    sources.append(part)
            if targets:
                copy_each(sources, targets)
        if self._divisor != 1:
            flat.div_(self._divisor)  # first, as DDP does: a sum may be out of range
        self._send(flat, targets, sources)

    def _send(self, flat: Tensor, targets: list[Tensor], sources: list[Tensor]) -> None:
        work = dist.all_reduce(flat, group=self._group, async_op=True)
        self.launched += 1
        self._flying.append(_Flight(work, flat, targets, sources))

    def _collect(self) -> None:
        """Wait for the oldest bucket, and copy it to the gradients that it was made of."""
        oldest = self._flying.popleft()
        oldest.work.wait()  # of a GPU: the current stream waits, not the host
        if oldest.targets:
            copy_each(oldest.targets, oldest.sources)
        if oldest.flat.is_cuda:  # it may have been made on another stream, in a backward pass
            oldest.flat.record_stream(torch.cuda.current_stream(oldest.flat.device))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _dense(tensor: Tensor) -> bool:
    """Return whether a tensor's values lie in a row, in one of the two orders that weights have."""
    return tensor.is_contiguous() or (
        tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )


def _shaped(part: Tensor, like: Tensor) -> Tensor:
    """Return a part of a bucket as a parameter is shaped, in its layout where that is dense."""
    if not _dense(like):
        return part.view(like.shape)
    return part.as_strided(like.shape, like.stride())
