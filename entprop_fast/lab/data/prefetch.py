"""Batch data that do not fit the device: worker processes, pinned memory, copies ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, Unpack

import torch
from torch import Tensor
from torch.utils.data import Dataset

from entprop_fast.counter_random import fold
from entprop_fast.lab.data.loader import Batch, Loader, LoaderOptions, to_device
from entprop_fast.lab.data.readers import UnreadableImage, processes, read_on_host

__all__ = ["PrefetchLoader", "UnreadableImage", "read_batches"]

T = TypeVar("T")

_TRANSFORMS = 2  # the stream of the data set's own draws, beside those of `loader`


class PrefetchLoader(Loader):
    """Batches read ahead by worker processes and copied while the device computes.

    From the same images and seed it makes the batches of `DeviceLoader`, bit for bit. Random
    transforms of the data set itself are seeded for each image by ``(seed, epoch, image)`` (torch,
    ``random`` and NumPy): they too repeat, whatever the number of workers.

    Args:
        dataset: ``dataset[i]`` is an image ``[C, H, W]``, uint8 or floating in [0, 1], of one size
            for all, and its label. A `TensorDataset` is read a batch at a time.
        batch_size: images in a batch.
        workers: processes that read; 0: the calling one; None: one a core, at most 8.
        unaugmented: the same images without random transforms, for `first`; None: ``dataset``.
        options: see `Loader`; its augmentation comes after the copy, on the device.

    Raises:
        ValueError: ``workers`` below 0, and `Loader`'s.
        UnreadableImage: (from an epoch) the data set raised, or gave what is no image.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        *,
        workers: int | None = None,
        unaugmented: Dataset[Any] | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(len(dataset), batch_size, **options)  # type: ignore[arg-type]
        self.workers = processes(workers)
        self.dataset = dataset
        self.unaugmented = dataset if unaugmented is None else unaugmented

    def first_batches(
        self, count: int, batch_size: int, own: slice = slice(None)
    ) -> Iterator[Batch]:
        """Yield the first images, see `Loader`."""
        rows = torch.arange(min(count, self.size)).split(batch_size)[own]
        # The transforms' draws of an epoch that does not exist: the same ones at every call.
        for images, labels in self._read(self.unaugmented, -1, rows):
            yield self._made(images, None, None), labels

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self._order(epoch)
        places = [self._rows(step) for step in range(start, len(self))]
        draws = self.augmented.draw(self.seed, epoch, to_device(order, self.device))
        rows = [order[place] for place in places]
        # Of a last batch with fewer rows than processes: an image says how none would look.
        read = self._read(self.dataset, epoch, [one if len(one) else order[:1] for one in rows])
        for place, one, (images, labels) in zip(places, rows, read, strict=True):
            images, labels = images[: len(one)], labels[: len(one)]
            yield self._made(images, None, draws and draws.of(place)), labels

    def _read(
        self, dataset: Dataset[Any], epoch: int, batches: Sequence[Tensor]
    ) -> Iterator[Batch]:
        """Read those rows as the data set gives them, onto the device."""
        key = fold((self.seed, epoch, _TRANSFORMS))
        return read_batches(dataset, batches, key=key, workers=self.workers, device=self.device)


def read_batches(
    dataset: Dataset[Any],
    batches: Sequence[Tensor],
    *,
    key: int = 0,
    workers: int | None = None,
    device: torch.device | None = None,
    what: str = "training image",
) -> Iterator[Batch]:
    """Read images and labels of a data set's rows, batch by batch in the order given.

    Args:
        dataset: see `PrefetchLoader`.
        batches: the rows of each batch, int64.
        key: of the random transforms' draws.
        workers: see `PrefetchLoader`.
        device: where the batches are to be; None: the CPU.
        what: one of the images, in an error's words.
    """
    device = torch.device("cpu") if device is None else device
    read = read_on_host(
        dataset, batches, key=key, workers=workers, pin=device.type == "cuda", what=what
    )
    return (_copied_ahead if device.type == "cuda" else _copied)(read, device)


def _copied(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    for images, labels in batches:
        yield images.to(device), labels.to(device)


def _copied_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy on a stream of its own: the next batch's copy starts before this one is handed out."""
    side = torch.cuda.Stream(device)

    def copy(batch: Batch) -> tuple[Tensor, Tensor, torch.cuda.Event]:
        with torch.cuda.stream(side):
            images, labels = (one.to(device, non_blocking=True) for one in batch)
            return images, labels, side.record_event()

    for images, labels, copied in _one_ahead(copy(batch) for batch in batches):
        current = torch.cuda.current_stream(images.device)
        current.wait_event(copied)  # on the device; the memory is the current stream's now
        images.record_stream(current)
        labels.record_stream(current)
        yield images, labels


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items, each when the next one has been made."""
    for ahead in items:
        for coming in items:
            yield ahead
            ahead = coming
        yield ahead
