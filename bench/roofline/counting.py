"""Count the ops of a step: `count(step)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch

from bench.fake_cuda.calls import Call, Calls
from bench.roofline.op import Op
from bench.roofline.rules import costs


class Counts:
    """Hold the ops of a step, and how often each came.

    Args:
        ops: as they came, or with their numbers.
    """

    def __init__(self, ops: Iterable[Op] | Counter[Op] = ()) -> None:
        self.ops: Counter[Op] = Counter(ops)

    def of(self, kind: str) -> Counts:
        """Return the ops of one class."""
        return Counts(Counter({op: n for op, n in self.ops.items() if op.kind == kind}))

    def named(self, name: str) -> Counts:
        """Return the ops of one name, such as "aten.convolution"."""
        return Counts(Counter({op: n for op, n in self.ops.items() if op.name == name}))

    @property
    def flop(self) -> int:
        """Return the FLOP of convolutions and products."""
        return sum(n * op.flop for op, n in self.ops.items())

    @property
    def bytes(self) -> int:
        """Return the bytes that are read and written."""
        return sum(n * op.bytes for op, n in self.ops.items())

    @property
    def launches(self) -> int:
        """Return the launches of kernels."""
        return sum(n * op.launches for op, n in self.ops.items())


def count(step: Callable[[], Any], device: torch.device | None = None) -> Counts:
    """Run a step once and count what PyTorch is asked for.

    Fake tensors will do (`bench.fake_cuda`): nothing depends on values.

    Args:
        step: what to run.
        device: count what happens there alone; None for everywhere.
    """
    found: Counter[Op] = Counter()

    def seen(call: Call) -> None:
        if device is None or any(t.device == device for t in (*call.read(), *call.fresh)):
            found.update(costs(call))

    with Calls(seen):
        step()
    return Counts(found)
