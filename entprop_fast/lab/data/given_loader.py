"""Train on somebody's `DataLoader`: its batches as they are, and the same ones after a resume."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from entprop_fast.counter_random import fold
from entprop_fast.lab.data.image_values import to_float
from entprop_fast.lab.data.loader import Batch, Loader, LoaderOptions
from entprop_fast.lab.data.pairs import batch_of
from entprop_fast.lab.data.readers import own_generators, seed_generators

_BEFORE_ALL = -1  # the epoch of draws that belong to none
_PLACES = 2**40  # of an epoch, in each process: more than there are


class GivenLoader(Loader):
    """The batches of a `DataLoader`, on a device.

    Order, size, workers and collation are the loader's. Each epoch begins with every generator that
    it can draw from seeded by ``(seed, epoch)``: its own, its samplers', and a stream of the global
    ones (torch, ``random``, NumPy) that is kept apart from the run's; ``set_epoch`` of a sampler or
    data set is called. So an epoch repeats, and one that is entered in its middle gives what was
    left; the batches before are read again for that. An order that depends on something else, such
    as how often a sampler was asked, cannot repeat.

    Args:
        loader: gives what `entprop_fast.lab.data.pairs.pair_of` takes; ``len(loader)`` is the
            number of batches in an epoch.
        check: refuses a batch as it comes, before it is on the device; of the first epoch.
        of: number of the process whose loader it is.
        options: see `Loader`; ``drop_last`` is the loader's own business, and ``normalize`` is for
            bytes, floating images having been through it. Nobody says which image is which, so that
            ``augment`` draws by ``(seed, epoch, place in the epoch)``.

    Raises:
        TypeError: the loader has no length.
        ValueError: it gives no batch.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        check: Callable[[Tensor, Tensor], None],
        of: int = 0,
        **options: Unpack[LoaderOptions],
    ) -> None:
        self._steps = _steps(loader)
        self._counted = indexed(loader) is None  # images of an epoch: nobody says how many
        rows = rows_of(loader)
        images = self._steps * rows if self._counted else len(loader.sampler)  # type: ignore[arg-type]
        super().__init__(images, rows, **options)
        self.loader, self.check, self._of = loader, check, of
        self._open: _Epoch | None = None
        self._checked = False

    def __len__(self) -> int:
        return self._steps

    @property
    def smallest(self) -> int:
        """Those of a usual batch: nobody says how many the last one has."""
        return self.batch_size

    def first_batches(
        self, count: int, batch_size: int, own: slice = slice(None)
    ) -> Iterator[Batch]:
        """Yield the data set's first images, as the loader's transforms give them, see `Loader`.

        Of a stream, the first batches of a pass of its own. All of them are read: what a transform
        draws may depend on those before.
        """
        return itertools.islice(self._first_batches(count, batch_size), own.start, None, own.step)

    def _first_batches(self, count: int, batch_size: int) -> Iterator[Batch]:
        rows = indexed(self.loader)
        if rows is not None:
            places = range(min(count, rows))
            order = [list(places[i : i + batch_size]) for i in range(0, len(places), batch_size)]
            source = reordered(self.loader, order)
        else:
            source = self.loader
        read = _Epoch(source, self.seed, _BEFORE_ALL)
        left = count
        while left > 0 and (batch := read.next()) is not None:
            images, labels = batch_of(batch)
            self.check(images, labels)
            yield self._ready(images[:left], labels[:left])
            left -= len(labels)

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        opened = self._open
        if opened is None or (opened.epoch, opened.place) != (epoch, start):
            opened = self._open = _Epoch(self.loader, self.seed, epoch)
            while opened.place < start and opened.next() is not None:
                pass
        while opened.place < len(self):
            first = opened.rows
            batch = opened.next()
            if batch is None:
                raise ValueError(
                    f"the DataLoader gave {opened.place} batches, and len() of it is {len(self)}: "
                    "the learning rate needs to know how many come"
                )
            images, labels = batch_of(batch)
            if not self._checked:
                self.check(images, labels)
            yield self._ready(images, labels, (epoch, first))
        if opened.next() is not None:
            raise ValueError(
                f"the DataLoader gives more batches than {len(self)}, its len(): those after it "
                "would never be used, and the learning rate needs to know how many come"
            )
        self._checked = True
        if self._counted:
            self.size = opened.rows
        self._open = None

    def _ready(self, images: Tensor, labels: Tensor, place: tuple[int, int] | None = None) -> Batch:
        """Bring a batch to the device; with its epoch and first row's number, augmented."""
        given = images.to(self.device, non_blocking=True)
        bytes_given, draws = given.dtype == torch.uint8, None
        if place is not None:
            epoch, first = place
            places = torch.arange(first, first + len(given), device=self.device)
            draws = self.augmented.draw(self.seed, epoch, places + self._of * _PLACES)
        made = to_float(self.augmented(given, None, draws))
        if self.normalize is not None and bytes_given:
            made = self.normalize(made)
        made = made.to(self.dtype or made.dtype).contiguous(memory_format=self.memory_format)
        return made, labels.to(self.device, non_blocking=True).long()


class _Epoch:
    """A pass through a loader, with the draws that belong to it."""

    def __init__(self, loader: DataLoader[Any], seed: int, epoch: int) -> None:
        self.epoch, self.place, self.rows = epoch, 0, 0
        key = fold((seed, epoch))
        with own_generators():
            seed_generators(key)
            for part in _drawing(loader):
                if isinstance(generator := getattr(part, "generator", None), torch.Generator):
                    generator.manual_seed(key)
                if epoch >= 0 and callable(set_epoch := getattr(part, "set_epoch", None)):
                    set_epoch(epoch)
            self._items = iter(loader)
            self._drawn = _states()

    def next(self) -> Any:
        """Return the next batch, or None."""
        with self._own_draws():
            batch = next(self._items, None)
        if batch is not None:
            self.place += 1
            self.rows += len(batch_of(batch)[1])
        return batch

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        with own_generators():
            torch.set_rng_state(self._drawn[0])
            random.setstate(self._drawn[1])
            np.random.set_state(self._drawn[2])
            yield
            self._drawn = _states()


def _states() -> tuple[Any, ...]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def _drawing(loader: DataLoader[Any]) -> list[object]:
    """List what may hold a generator, or want to know the epoch."""
    batching = loader.batch_sampler
    inner = getattr(batching, "sampler", None)
    parts = [loader, loader.sampler, batching, inner, loader.dataset]
    return [one for place, one in enumerate(parts) if one is not None and one not in parts[:place]]


def rows_of(loader: DataLoader[Any]) -> int:
    """Return how many rows a batch of the loader has, as far as it says; else 1."""
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    return size if isinstance(size, int) and size > 0 else 1


def indexed(loader: DataLoader[Any]) -> int | None:
    """Return the images of the loader's data set where they can be asked for by number."""
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return None
    try:
        return len(loader.dataset)  # type: ignore[arg-type]
    except TypeError:
        return None


def reordered(
    loader: DataLoader[Any],
    batches: Sequence[Sequence[int]] | None = None,
    *,
    items: Sequence[Any] | None = None,
) -> DataLoader[Any]:
    """Make a loader like another one that gives its data set in another order.

    Args:
        loader: of a data set with indices.
        batches: the rows of each batch; for a loader that batches.
        items: the indices, of batches say; for one that does not (``batch_size=None``).
    """
    order: dict[str, Any] = (
        {"batch_sampler": batches} if items is None else {"batch_size": None, "sampler": items}
    )
    return DataLoader(
        loader.dataset,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator(),  # the default one is the caller's
        **order,
    )


def _steps(loader: DataLoader[Any]) -> int:
    try:
        steps = len(loader)
    except TypeError as error:
        raise TypeError(
            f"the DataLoader has no length ({error}): give its data set a __len__, because the "
            "learning rate needs to know how many batches come"
        ) from None
    if steps < 1:
        raise ValueError("the DataLoader gives no batch (len() of it is 0); drop_last, perhaps")
    return steps
