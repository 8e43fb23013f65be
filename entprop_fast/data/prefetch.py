"""Batches of data that do not fit the device: worker processes, pinned memory, copies ahead."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from entprop_fast.data.augment import Augment
from entprop_fast.data.counter_random import fold, keys_of
from entprop_fast.data.loader import Batch, Loader, to_device

T = TypeVar("T")

MOST_WORKERS = 8  # where nobody names a number
MOST_PROCESSES = 512  # that somebody may name: a machine that cannot start them stands still

_TRANSFORMS = 2  # the stream of the data set's own draws, beside those of `loader`


class UnreadableImage(OSError):
    """An image that the data set could not give; `index` is its number there."""

    def __init__(self, index: int, reason: str, what: str = "training image") -> None:
        super().__init__(f"{what} {index} cannot be read: {reason}")
        self.index = index


class PrefetchLoader(Loader):
    """Batches read ahead by worker processes and copied while the device computes.

    From the same images and seed it makes the batches of `DeviceLoader`, bit for bit. Random
    transforms of the data set itself are seeded for each image by ``(seed, epoch, image)`` (torch,
    ``random`` and NumPy): they too repeat, whatever the number of workers.

    Args:
        dataset: ``dataset[i]`` is an image ``[C, H, W]``, uint8 or floating in [0, 1], of one size
            for all, and its label. A `TensorDataset` is read a batch at a time.
        batch_size: images in a batch.
        seed: see `Loader`, as the rest.
        drop_last: see `Loader`.
        device: where the batches are.
        augment: see `Loader`; after the copy, on the device.
        normalize: see `Loader`; likewise.
        workers: processes that read; 0: the calling one; None: one a core, at most 8.
        unaugmented: the same images without random transforms, for `first`; None: ``dataset``.

    Raises:
        ValueError: ``workers`` below 0, and `Loader`'s.
        UnreadableImage: (from an epoch) the data set raised, or gave what is no image.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        *,
        seed: int,
        drop_last: bool,
        device: torch.device | str,
        augment: Augment | None = None,
        normalize: tuple[Sequence[float], Sequence[float]] | None = None,
        workers: int | None = None,
        unaugmented: Dataset[Any] | None = None,
    ) -> None:
        super().__init__(
            len(dataset),  # type: ignore[arg-type]
            batch_size,
            seed=seed,
            drop_last=drop_last,
            device=device,
            augment=augment,
            normalize=normalize,
        )
        self.workers = _processes(workers)
        self.dataset = dataset
        self.unaugmented = dataset if unaugmented is None else unaugmented

    def first_batches(self, count: int, batch_size: int) -> Iterator[Batch]:
        """See `Loader`."""
        rows = torch.arange(min(count, self.size)).split(batch_size)
        # The transforms' draws of an epoch that does not exist: the same ones at every call.
        for images, labels in self._read(self.unaugmented, -1, rows):
            yield self._made(images, None, None), labels

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self._order(epoch)
        places = [self._rows(step) for step in range(start, len(self))]
        moves = self._moves(epoch, to_device(order, self.device)) if self.augment else None
        read = self._read(self.dataset, epoch, [order[place] for place in places])
        for place, (images, labels) in zip(places, read, strict=True):
            yield self._made(images, None, moves and moves.of(place)), labels

    def _read(
        self, dataset: Dataset[Any], epoch: int, batches: Sequence[Tensor]
    ) -> Iterator[Batch]:
        """The images and labels of those rows, on the device, as the data set gives them."""
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
    """Images and labels of a data set's rows, batch by batch in the order given.

    Args:
        dataset: see `PrefetchLoader`.
        batches: the rows of each batch, int64.
        key: of the random transforms' draws.
        workers: see `PrefetchLoader`.
        device: where the batches are to be; None: the CPU.
        what: one of the images, in an error's words.

    Raises:
        ValueError: ``workers`` below 0.
        UnreadableImage: (while iterating) the data set raised, or gave what is no image.
    """
    device = torch.device("cpu") if device is None else device
    num_workers = min(_processes(workers), len(batches))
    loader = DataLoader(
        _Reader(dataset, key),
        batch_size=None,  # a reader's item is a whole batch
        sampler=batches,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals,
        multiprocessing_context=_start_method() if num_workers else None,
        generator=torch.Generator(),  # the default one is the run's
    )
    copied = _copied_ahead if device.type == "cuda" else _copied
    return copied(_readable(loader, what), device)


@dataclass(frozen=True)
class _Unreadable:
    """In place of a batch: an error that crosses the process boundary without its traceback."""

    index: int
    reason: str


class _Reader(Dataset[Batch | _Unreadable]):
    """A data set whose index is a tensor of rows and whose item is their batch."""

    def __init__(self, dataset: Dataset[Any], key: int) -> None:
        self.dataset = dataset
        self.key = key

    def __getitem__(self, rows: Tensor) -> Batch | _Unreadable:
        if isinstance(self.dataset, TensorDataset):
            gathered: Batch = self.dataset[rows]  # a tuple of tensors, indexed at once
            return gathered
        read: list[Tensor] = []
        labels: list[Any] = []
        seeds = keys_of(self.key, rows).tolist()
        with _own_generators():
            for row, seed in zip(rows.tolist(), seeds, strict=True):
                try:
                    _seed_generators(seed)
                    image, label = self.dataset[row]
                    _check_image(image, read[0] if read else image)
                except Exception as error:
                    return _Unreadable(row, f"{type(error).__name__}: {error}")
                read.append(image)
                labels.append(label)
        return torch.stack(read), default_collate(labels)


def _check_image(image: object, like: Tensor) -> None:
    if not isinstance(image, Tensor) or image.ndim != 3:
        what = f"of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image)
        raise TypeError(f"a tensor [C, H, W] is needed, not one {what}")
    if (image.shape, image.dtype) != (like.shape, like.dtype):
        raise ValueError(
            f"{image.dtype} {tuple(image.shape)} in a batch of {like.dtype} {tuple(like.shape)}"
        )


def _readable(read: DataLoader[Batch | _Unreadable], what: str) -> Iterator[Batch]:
    for batch in read:
        if isinstance(batch, _Unreadable):
            raise UnreadableImage(batch.index, batch.reason, what)
        images, labels = batch
        yield images, labels


def _copied(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    for images, labels in batches:
        yield images.to(device), labels.to(device)


def _copied_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """On a stream of its own: the next batch's copy starts before this one is handed out."""
    side = torch.cuda.Stream(device)

    def copy(batch: Batch) -> tuple[Tensor, Tensor, torch.cuda.Event]:
        with torch.cuda.stream(side):
            images, labels = (one.to(device, non_blocking=True) for one in batch)
            return images, labels, side.record_event()

    for images, labels, copied in _one_ahead(copy(batch) for batch in batches):
        yield _arrived(images, labels, copied)


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each handed out when the next one has been made."""
    for ahead in items:
        for coming in items:
            yield ahead
            ahead = coming
        yield ahead


def _arrived(images: Tensor, labels: Tensor, copied: torch.cuda.Event) -> Batch:
    """For the current stream, which waits on the device; the memory is its own from here on."""
    current = torch.cuda.current_stream(images.device)
    current.wait_event(copied)
    images.record_stream(current)
    labels.record_stream(current)
    return images, labels


@contextmanager
def _own_generators() -> Iterator[None]:
    """The global generators are the run's: left as found (without workers it is this process)."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def _seed_generators(seed: int) -> None:
    torch.default_generator.manual_seed(seed)  # not torch.manual_seed: that seeds CUDA as well
    random.seed(seed & (2**64 - 1))
    np.random.seed(seed & (2**32 - 1))


def _as_it_is(item: Any) -> Any:
    return item


def _leave_signals(worker: int) -> None:
    """Ctrl-C reaches every process; the run decides when to stop, and ends its workers then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _start_method() -> str | None:
    """Forked where that is usual: a spawned one imports torch anew, for seconds, in every epoch.

    The default of a process that was spawned itself, as a comparison's are, is to spawn.
    """
    return "fork" if sys.platform == "linux" else None


def workers_of_each(runs: int) -> int:
    """Processes that read for each of `runs` side by side, so that together they are one a core."""
    return max(1, min(_cores() // runs, MOST_WORKERS))


def _processes(workers: int | None) -> int:
    """That many, or by default one a core within reason."""
    if workers is not None and not 0 <= workers <= MOST_PROCESSES:
        raise ValueError(f"workers = {workers} must be 0 or more, at most {MOST_PROCESSES}")
    return min(_cores(), MOST_WORKERS) if workers is None else workers


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
