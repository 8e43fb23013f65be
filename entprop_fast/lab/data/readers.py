"""Read batches in other processes, in order; a killed or stopped one holds up nobody."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate, get_worker_info

from entprop_fast.counter_random import keys_of
from entprop_fast.devices import usable_cores
from entprop_fast.lab import stopping
from entprop_fast.lab.data.loader import Batch
from entprop_fast.lab.data.shared_memory import SharedTensors, share
from entprop_fast.lab.job import current

MOST_WORKERS = 8  # where nobody names a number
MOST_PROCESSES = 512  # that somebody may name: a machine that cannot start them stands still

_ASK = 0.5  # seconds without a batch after which the run asks whether to stop
_LONG = 30  # seconds without one after which it says so,
_HUNG = 600  # and after which it fails: a reader hangs, or what it reads from
_DYING = 5  # seconds that a killed reader is waited for: one may wait for a disk that is gone
_TIMED_OUT = "DataLoader timed out"


class UnreadableImage(OSError):
    """An image that the data set could not give; `index` is its number there."""

    def __init__(self, index: int, reason: str, what: str = "training image") -> None:
        super().__init__(f"{what} {index} cannot be read: {reason}")
        self.index = index


class ReadersFailed(OSError):
    """The processes that read images: one was killed, or what they need is not there."""


def read_on_host(
    dataset: Dataset[Any],
    batches: Sequence[Tensor],
    *,
    key: int,
    workers: int | None,
    pin: bool,
    what: str,
) -> Iterator[Batch]:
    """Read as `prefetch.read_batches`, on the CPU; `pin` for copies to a GPU."""
    num_workers = min(processes(workers), len(batches))
    loader = DataLoader(
        _Reader(dataset, key),
        batch_size=None,  # a reader's item is a whole batch
        sampler=[rows.numpy() for rows in batches],  # a tensor would cross in shared memory
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        worker_init_fn=_leave_signals,
        multiprocessing_context=_start_method() if num_workers else None,
        generator=torch.Generator(),  # the default one is the run's
        timeout=_ASK if num_workers else 0,
    )
    return _readable(_waited_for(loader, what), what)


@dataclass(frozen=True)
class _Failed:
    """In place of a batch: an error that crosses the process boundary without its traceback."""

    reason: str
    index: int | None = None  # of an image that cannot be read; None: nothing could be handed over


_Item = tuple[Tensor, ...] | SharedTensors | _Failed


class _Reader(Dataset[_Item]):
    """A data set whose index is an array of rows and whose item is their batch."""

    def __init__(self, dataset: Dataset[Any], key: int) -> None:
        self.dataset = dataset
        self.key = key

    def __getitem__(self, rows: NDArray[np.int64]) -> _Item:
        batch = self._read(torch.from_numpy(rows))
        if get_worker_info() is None or isinstance(batch, _Failed):
            return batch
        try:
            return share(batch)
        except OSError as error:
            return _Failed(str(error))

    def _read(self, rows: Tensor) -> Batch | _Failed:
        if isinstance(self.dataset, TensorDataset):
            gathered: Batch = self.dataset[rows]  # a tuple of tensors, indexed at once
            return gathered
        read: list[Tensor] = []
        labels: list[Any] = []
        seeds = keys_of(self.key, rows).tolist()
        with own_generators():
            for row, seed in zip(rows.tolist(), seeds, strict=True):
                stopping.check()
                try:
                    seed_generators(seed)
                    image, label = self.dataset[row]
                    _check_image(image, read[0] if read else image)
                except Exception as error:
                    return _Failed(f"{type(error).__name__}: {error}", row)
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


def _waited_for(read: DataLoader[_Item], what: str) -> Generator[_Item, None, None]:
    """Wait for what is read, in order; while none comes, ask twice a second whether to stop.

    An error that has to do with the processes is raised here alone, and not, as by torch's handler
    of SIGCHLD, wherever the run happens to be.
    """
    way_out = "--workers sets the number of these processes, 0 reads without any"
    waiting, said = time.monotonic(), False
    started: set[BaseProcess] = set()
    try:
        _check_semaphores(read)
        others = set(active_children())
        with _handler_kept(signal.SIGCHLD):
            items = iter(read)
        started = set(active_children()) - others
        while True:
            stopping.check()
            try:
                item = next(items)
            except StopIteration:
                started = set()  # they end by themselves
                return
            except (RuntimeError, EOFError, ConnectionError) as error:  # or its pipe just ends
                stopping.check()
                if not read.num_workers:
                    raise
                if not str(error).startswith(_TIMED_OUT):
                    reason = " ".join(str(error).split()) or type(error).__name__
                    raise ReadersFailed(
                        f"a process that reads {what}s was killed, for want of memory perhaps "
                        f"({reason}); {way_out}"
                    ) from error
                waited = time.monotonic() - waiting
                if waited > _HUNG:
                    raise ReadersFailed(
                        f"no {what} came in {_HUNG} s: the processes that read them hang, or the "
                        f"disk that they read from does; {way_out}"
                    ) from error
                if waited > _LONG and not said:
                    said = True
                    warnings.warn(
                        f"no {what} came in {_LONG} s; after {_HUNG} s the run ends; {way_out}",
                        stacklevel=2,
                    )
                continue
            if isinstance(item, _Failed) and item.index is None:
                raise ReadersFailed(f"{what}s cannot be handed over: {item.reason}; {way_out}")
            yield item
            waiting, said = time.monotonic(), False
    except OSError as error:
        if isinstance(error, ReadersFailed) or not read.num_workers:
            raise
        raise ReadersFailed(f"{what}s cannot be read by processes: {error}; {way_out}") from error
    finally:
        with _handler_kept(signal.SIGCHLD, signal.SIG_DFL):  # another loader may have set torch's
            for process in started:  # nobody waits for what they read: not for a slow disk either
                process.kill()
            for process in started:
                process.join(_DYING)


def _check_semaphores(read: DataLoader[_Item]) -> None:
    """Raise ``OSError`` where the queues' semaphores find no room in ``/dev/shm``.

    DataLoader, half made, would print a traceback of its own.
    """
    if read.num_workers:
        context = get_context(_start_method())
        try:
            _ = [context.Semaphore() for _ in range(8 * (read.num_workers + 1))]
        except OSError as error:
            raise OSError(error.errno, f"semaphores: {error.strerror}", "/dev/shm") from error


@contextmanager
def _handler_kept(signum: int, meanwhile: signal.Handlers | None = None) -> Iterator[None]:
    """Put the handler back afterwards; within, it is `meanwhile`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signum)
    if meanwhile is not None:
        signal.signal(signum, meanwhile)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signum, before)


def _readable(items: Generator[_Item, None, None], what: str) -> Iterator[Batch]:
    with closing(items):
        for batch in items:
            if isinstance(batch, _Failed) and batch.index is not None:
                raise UnreadableImage(batch.index, batch.reason, what)
            assert isinstance(batch, tuple)  # shared tensors arrive as what they were
            images, labels = batch
            yield images, labels


@contextmanager
def own_generators() -> Iterator[None]:
    """Leave the global generators, the run's, as found (without workers it is this process)."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def seed_generators(seed: int) -> None:
    """Seed the global generators of the CPU: torch's, ``random``'s and NumPy's."""
    torch.default_generator.manual_seed(seed)  # not torch.manual_seed: that seeds CUDA as well
    random.seed(seed & (2**64 - 1))
    np.random.seed(seed & (2**32 - 1))


def _as_it_is(item: Any) -> Any:
    return item


def _leave_signals(worker: int) -> None:
    """Leave signals, which reach every process of a terminal or a job, to the run.

    It ends its readers then. They die of a second SIGTERM alone: the first one may be the job's.
    """
    for one in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(one, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, _: signal.signal(signum, signal.SIG_DFL))


def _start_method() -> str | None:
    """Choose to fork where that is usual: a spawned process imports torch anew in every epoch.

    The default of a process that was spawned itself, as a comparison's are, is to spawn.
    """
    return "fork" if sys.platform == "linux" else None


def workers_of_each(runs: int) -> int:
    """Return the readers of each of `runs` side by side that are together one a core."""
    return max(1, min(usable_cores() // runs, MOST_WORKERS))


def processes(workers: int | None) -> int:
    """Return that many processes, by default one a core within reason.

    The processes of a job share the cores of their machine.
    """
    if workers is not None and not 0 <= workers <= MOST_PROCESSES:
        raise ValueError(f"workers = {workers} must be at least 0, at most {MOST_PROCESSES}")
    return workers_of_each(current().local_world) if workers is None else workers
