"""Take an optimiser step over several batches, whose gradients are averaged."""

from __future__ import annotations

import contextlib

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from entprop_fast.methods import FreeAT, Method, StepResult


def optimizer_steps(batches: int, group: int) -> int:
    """Return the steps of so many batches of an epoch, one for each group and the last, smaller."""
    return -(-batches // group)


class Accumulation:
    """Group the batches of an epoch: an optimiser step for each group.

    Each batch goes through the method as a step's batch does: it is mixed, rows are selected from
    it, running statistics move. The gradient is the mean over the batches of a group. The last
    group of an epoch has the batches that are left; its gradient is the mean over those. Several
    processes exchange gradients at the last batch of a group alone.

    Args:
        method: that trains.
        model: what it was made with, a network or its wrapper for several processes.
        batches: of a group.
        epoch: batches of an epoch.

    Raises:
        ValueError: the method steps by itself.
    """

    def __init__(self, method: Method, model: nn.Module, batches: int, epoch: int) -> None:
        self._method, self._model = method, model
        self.batches, self.epoch = batches, epoch
        if batches > 1 and isinstance(method, FreeAT):
            raise ValueError(
                f"accumulate_batches={batches}: method 'free_at' takes an optimiser step in each "
                "of its replays of a batch; use 1, or another method"
            )

    @property
    def steps(self) -> int:
        """Return the optimiser steps of an epoch."""
        return optimizer_steps(self.epoch, self.batches)

    def steps_within(self, batch: int) -> int:
        """Return the steps of an epoch that its first `batch` batches have begun."""
        return optimizer_steps(batch, self.batches)

    def begins(self, batch: int) -> bool:
        """Return whether this batch of an epoch is the first of a group."""
        return batch % self.batches == 0

    def ends(self, batch: int) -> bool:
        """Return whether this batch of an epoch is the last of a group."""
        return self.whole(batch + 1)

    def whole(self, batch: int) -> bool:
        """Return whether no group is half done when `batch` batches of an epoch are."""
        return self.begins(batch) or batch == self.epoch

    def take(self, batch: int, images: Tensor, labels: Tensor) -> StepResult:
        """Use one batch, number `batch` of its epoch; step where it ends its group."""
        method = self._method
        if self.batches == 1:
            return method(images, labels)
        if self.begins(batch):
            method.optimizer.zero_grad(set_to_none=True)
        with self._exchanging(batch):
            result = method.backward(images, labels, weight=1 / self._size(batch))
        if self.ends(batch):
            method.apply_gradients()
        return result

    def _exchanging(self, batch: int) -> contextlib.AbstractContextManager[None]:
        """Let the processes exchange gradients where a batch ends its group."""
        if self.ends(batch) or not isinstance(self._model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._model.no_sync()

    def _size(self, batch: int) -> int:
        """Return the batches of the group that this one is in."""
        first = batch - batch % self.batches
        return min(self.batches, self.epoch - first)
