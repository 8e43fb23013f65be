"""Shuffle batches by seed and epoch, for loaders whose images live on the device or elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Required, TypedDict, Unpack

import torch
from torch import Tensor

from entprop_fast.augment import Augmentation
from entprop_fast.counter_random import fold
from entprop_fast.lab.data.augmented_batches import BatchAugmenter, Draws
from entprop_fast.lab.data.image_values import Normalize, to_float

Batch = tuple[Tensor, Tensor]  # images float [views * B, C, H, W], labels [B]


class LoaderOptions(TypedDict, total=False):
    """The settings of every loader; `Loader` explains them."""

    seed: Required[int]
    drop_last: Required[bool]
    device: Required[torch.device | str]
    augment: Augmentation | None
    views: int
    normalize: tuple[Sequence[float], Sequence[float]] | None
    dtype: torch.dtype | None
    memory_format: torch.memory_format
    rank: int
    world: int


class Loader(ABC):
    """Shuffled batches of images and labels on a device.

    The order of an epoch is a function of ``(seed, epoch)`` alone, an image's augmentation one of
    ``(seed, epoch, image)``: neither depends on the kind of loader, on the device, on other random
    draws, or on where in the epoch one starts.

    The processes of a job deal the rows of each batch out: rank r of N has rows ``r::N``. So their
    number changes no epoch. Of a last, smaller batch a process may have fewer rows, or none.

    Args:
        size: images in the data set.
        batch_size: images in a batch of all processes.
        seed: any integer.
        drop_last: leave out the last batch of an epoch where it would be smaller.
        device: where the batches are.
        augment: of every batch, on the device; None: none.
        views: of each row in a batch, 3 for a method that compares them (``method.views``), see
            `BatchAugmenter`.
        normalize: (mean, std) per channel, in image units; None: images stay in [0, 1].
        dtype: of the images; None: float32 of bytes, others keep theirs.
        memory_format: of the images.
        rank: number of this process, from 0.
        world: processes that share each batch.

    Raises:
        ValueError: no images, ``batch_size`` below 1, ``drop_last`` with fewer images than one
            batch, a ``normalize`` that is not valid, or a ``rank`` outside of ``world``.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        drop_last: bool,
        device: torch.device | str,
        augment: Augmentation | None = None,
        views: int = 1,
        normalize: tuple[Sequence[float], Sequence[float]] | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format = torch.channels_last,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        _check_size(size, batch_size)
        if not 0 <= rank < world:
            raise ValueError(f"rank = {rank} must be between 0 and {world - 1}: world = {world}")
        if drop_last and size < batch_size:
            raise ValueError(
                f"batch_size = {batch_size} with drop_last leaves no batch of {size} images: "
                f"expected at most {size}, or no drop_last"
            )
        self.size, self.batch_size = size, batch_size
        self.seed, self.drop_last = seed, drop_last
        self.device, self.augmented = torch.device(device), BatchAugmenter(augment, views)
        self.normalize = normalize and Normalize(*normalize, self.device)
        self.dtype, self.memory_format = dtype, memory_format
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        """Return the steps in an epoch."""
        full, rest = divmod(self.size, self.batch_size)
        return full if self.drop_last or rest == 0 else full + 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch ``start`` on (a resumed run's next one).

        Raises:
            ValueError: a negative ``epoch``, or ``start`` outside ``0 ... len(self)``.
        """
        if epoch < 0:
            raise ValueError(f"epoch = {epoch} must be 0 or more")
        if not 0 <= start <= len(self):
            raise ValueError(f"start = {start} must be between 0 and {len(self)}, the steps")
        return self._batches(epoch, start)

    def first(self, count: int) -> Batch:
        """Return the data set's first images as an evaluation sees them, in order."""
        images, labels = zip(*self.first_batches(count, self.batch_size), strict=True)
        return channels_last(torch.cat(images)), torch.cat(labels)

    @abstractmethod
    def first_batches(
        self, count: int, batch_size: int, own: slice = slice(None)
    ) -> Iterator[Batch]:
        """Yield `first`, a batch at a time: large images need not all be there at once.

        `own` chooses among the batches, with a start and a step.
        """

    @abstractmethod
    def _batches(self, epoch: int, start: int) -> Iterator[Batch]: ...

    def _order(self, epoch: int) -> Tensor:
        """Return the images of an epoch, int64 ``[size]`` on the host."""
        generator = torch.Generator().manual_seed(fold((self.seed, epoch)))
        return torch.randperm(self.size, generator=generator)

    @property
    def smallest(self) -> int:
        """The rows of all processes in the smallest batch of an epoch."""
        rest = self.size % self.batch_size
        return rest if rest and not self.drop_last else self.batch_size

    @property
    def fewest(self) -> int:
        """The rows of the process that has fewest of a batch, in the smallest batch of an epoch."""
        return self.smallest // self.world

    def _rows(self, step: int) -> slice:
        """Return this process's rows of a batch, as places in the epoch's order."""
        first = step * self.batch_size
        return slice(first + self.rank, first + self.batch_size, self.world)

    def _made(self, images: Tensor, rows: Tensor | None, draws: Draws | None) -> Tensor:
        """Make the batch of `images`' ``rows`` (None: all of them), as the network takes it."""
        images = self.augmented(images, rows, draws)
        images = to_float(images)
        if self.normalize is not None:
            images = self.normalize(images)
        return images.to(self.dtype or images.dtype).contiguous(memory_format=self.memory_format)


class DeviceLoader(Loader):
    """Batches gathered on the device from images copied there once.

    An epoch waits for the device nowhere.

    Args:
        images: ``[N, C, H, W]``, uint8 or floating in [0, 1]; uint8 takes a quarter of the memory.
        labels: ``[N]``.
        batch_size: images in a batch.
        options: see `Loader`; images and labels go to its ``device``, too.

    Raises:
        ValueError: lengths that differ, and `Loader`'s.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, batch_size: int, **options: Unpack[LoaderOptions]
    ) -> None:
        check_batching(images, labels, batch_size)
        super().__init__(len(images), batch_size, **options)
        self.images = channels_last(images.to(self.device))
        self.labels = labels.to(self.device)

    def first_batches(
        self, count: int, batch_size: int, own: slice = slice(None)
    ) -> Iterator[Batch]:
        """Yield `first`, a batch at a time, see `Loader`."""
        pairs = (one[:count].split(batch_size)[own] for one in (self.images, self.labels))
        for images, labels in zip(*pairs, strict=True):
            yield self._made(images, None, None), labels

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order = to_device(self._order(epoch), self.device)
        draws = self.augmented.draw(self.seed, epoch, order)
        for step in range(start, len(self)):
            place = self._rows(step)
            rows = order[place]
            yield self._made(self.images, rows, draws and draws.of(place)), self.labels[rows]


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to the device; to CUDA from pinned memory, without a wait."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def channels_last(images: Tensor) -> Tensor:
    """Put images ``[N, C, H, W]`` channels last in memory."""
    return images.contiguous(memory_format=torch.channels_last)


def check_batching(images: Tensor, labels: Tensor, batch_size: int) -> None:
    """Raise ``ValueError`` unless there are images, as many labels, and a positive batch size."""
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    _check_size(len(images), batch_size)


def _check_size(size: int, batch_size: int) -> None:
    if size == 0:
        raise ValueError("images is empty; at least one is needed")
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size} must be at least 1")
