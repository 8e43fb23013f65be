"""Batches of a data set that lives on the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from entprop_fast.data.counter_random import fold


class DeviceLoader:
    """Shuffled batches, gathered on the device from images copied there once.

    The order of an epoch is a function of ``(seed, epoch)`` alone: it does not depend on the
    device, on other random draws, or on where in the epoch one starts.

    Args:
        images: ``[N, ...]``; batches keep their memory format (channels_last included).
        labels: ``[N]``.
        batch_size: images in a batch.
        seed: any integer.
        drop_last: leave out the last batch of an epoch where it would be smaller.
        device: where images and labels go, and where the batches are.

    Raises:
        ValueError: lengths that differ, no images, ``batch_size`` below 1, or ``drop_last`` with
            fewer images than one batch.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        seed: int,
        drop_last: bool,
        device: torch.device | str,
    ) -> None:
        check_batching(images, labels, batch_size)
        if drop_last and len(images) < batch_size:
            raise ValueError(
                f"batch_size = {batch_size} with drop_last leaves no batch of {len(images)} images"
            )
        self.images = images.to(device)
        self.labels = labels.to(device)
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last

    def __len__(self) -> int:
        """Steps in an epoch."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full if self.drop_last or rest == 0 else full + 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, from batch ``start`` on (a resumed run's next one).

        Raises:
            ValueError: a negative ``epoch``, or ``start`` outside ``0 ... len(self)``.
        """
        if epoch < 0:
            raise ValueError(f"epoch = {epoch} must be 0 or more")
        if not 0 <= start <= len(self):
            raise ValueError(f"start = {start} must be between 0 and {len(self)}, the steps")
        return self._batches(self._order(epoch), start)

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(fold((self.seed, epoch)))
        order = torch.randperm(len(self.images), generator=generator)
        return order.to(self.images.device)

    def _batches(self, order: Tensor, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(start, len(self)):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self.images[rows], self.labels[rows]


def check_batching(images: Tensor, labels: Tensor, batch_size: int) -> None:
    """``ValueError`` unless there are images, as many labels, and a batch size of 1 or more."""
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    if len(images) == 0:
        raise ValueError("images is empty; at least one is needed")
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size} must be at least 1")
