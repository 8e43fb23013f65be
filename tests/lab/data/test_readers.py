"""Check processes that read images: killed, without shared memory, slow; nothing waits."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import resource_sharer
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from entprop_fast.lab import stopping
from entprop_fast.lab.cli import train
from entprop_fast.lab.data import choose_loader, readers
from entprop_fast.lab.data.prefetch import read_batches
from entprop_fast.lab.data.readers import ReadersFailed
from entprop_fast.lab.data.shared_memory import SharedTensors, share
from entprop_fast.lab.data.verify import in_threads
from entprop_fast.lab.stopping import StopSignals
from entprop_fast.lab.training.errors import RunFailed, bad_input

ROWS = torch.arange(12).split(3)


class Numbers(Dataset[tuple[Tensor, int]]):
    """Image i is full of i; something happens before it is read."""

    def __init__(self, before: Callable[[int], object] | None = None) -> None:
        self.before = before

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.before is not None:
            self.before(index)
        return torch.full((3, 2, 2), index, dtype=torch.uint8), index


def numbers(dataset: Dataset[tuple[Tensor, int]]) -> list[int]:
    found = []
    for images, labels in read_batches(dataset, ROWS, workers=2):
        assert torch.equal(images[:, 0, 0, 0], labels.to(torch.uint8))
        found += labels.tolist()
    return found


def no_room(*_: object) -> None:
    raise RuntimeError("unable to allocate shared memory (shm)")


def test_batches_need_no_room_in_dev_shm(monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND C3: a batch that found none was lost, and waited for for ever."""
    for name in ("_share_fd_cpu_", "_share_filename_cpu_"):
        monkeypatch.setattr(torch.UntypedStorage, name, no_room)
    assert numbers(Numbers()) == list(range(12))


@pytest.mark.parametrize("step", ["share", "_check_semaphores"])
def test_what_readers_lack_is_one_failure(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND C3: no file descriptor, no room for semaphores."""

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(readers, step, fail)
    with pytest.raises(ReadersFailed, match=r"Too many open files.*--workers"):
        numbers(Numbers())
    with pytest.raises(RunFailed), bad_input():  # not the user's settings
        numbers(Numbers())


def dies_at_7(index: int) -> None:
    """As for want of memory."""
    if index == 7:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_reader_is_one_failure() -> None:
    """FOUND C3: soon, and raised where batches are waited for, not out of torch's handler."""
    before, began = signal.getsignal(signal.SIGCHLD), time.monotonic()
    with pytest.raises(ReadersFailed, match=r"killed.*--workers"):
        numbers(Numbers(dies_at_7))
    assert time.monotonic() - began < 20
    assert signal.getsignal(signal.SIGCHLD) == before
    assert not multiprocessing.active_children()


def test_a_reader_killed_before_its_batch_was_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe just ends then, without a word."""

    def ends(*_: object) -> None:
        raise EOFError

    monkeypatch.setattr(resource_sharer.DupFd, "detach", ends)
    with pytest.raises(ReadersFailed, match=r"killed.*EOFError.*--workers"):
        numbers(Numbers())


class DyingImages(Dataset[tuple[Tensor, Tensor]]):
    """Of the run below: a process may read 30 images."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels, self.left = images, labels, 30

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[index], self.labels[index]


def test_a_run_whose_reader_is_killed_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND C3: exit code 1, after the first step, which is not taken for bad input."""
    monkeypatch.setattr(choose_loader, "TensorDataset", DyingImages)
    small = "--train-size 60 --batch-size 20 --epochs 2 --threads 1 --device cpu --workers 1"
    out = ["--loader", "prefetch", "--out", str(tmp_path / "run")]
    assert train.main([*small.split(), *out]) == 1
    error = capsys.readouterr().err
    assert error.startswith("failed: ") and error.count("\n") == 1 and "--workers" in error


def test_who_waits_for_a_reader_can_be_stopped() -> None:
    """FOUND W13: within a second, and the reader ends as well."""
    signals = StopSignals()
    timer = threading.Timer(0.5, setattr, (signals, "pending", signal.SIGTERM))
    timer.start()
    began = time.monotonic()
    with stopping.watched(signals), pytest.raises(stopping.Stopped):
        numbers(Numbers(lambda _: time.sleep(60.0)))
    assert time.monotonic() - began < 5
    assert not multiprocessing.active_children()


def test_a_long_wait_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_ASK", 0.05)
    monkeypatch.setattr(readers, "_LONG", 0)
    with pytest.warns(UserWarning, match=r"no training image came.*--workers"):
        assert numbers(Numbers(lambda _: time.sleep(0.1))) == list(range(12))


def test_a_hung_reader_is_one_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither holds up the run for ever nor its end."""
    monkeypatch.setattr(readers, "_ASK", 0.05)
    monkeypatch.setattr(readers, "_HUNG", 0.3)
    began = time.monotonic()
    with pytest.raises(ReadersFailed, match=r"no training image came in 0\.3 s.*--workers"):
        numbers(Numbers(lambda index: time.sleep(600.0 if index == 7 else 0.0)))
    assert time.monotonic() - began < 5
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("call", ["memfd_create", "ftruncate"])
def test_memory_that_a_reader_cannot_get_is_one_failure(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the reader itself, where a batch is handed over."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(ReadersFailed, match=r"handed over.*No space left.*--workers"):
        numbers(Numbers())


def test_tensors_arrive_as_they_were() -> None:
    sent = (
        torch.arange(5).bool(),
        torch.rand(2, 3).to(torch.bfloat16),
        torch.empty(0, 4),
        torch.tensor(7),
        torch.rand(4, 6).t(),
    )
    shared = share(sent)
    assert isinstance(shared, SharedTensors)
    opened, arguments = shared.__reduce__()
    arrived = opened(*arguments)
    for ours, theirs in zip(arrived, sent, strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def test_a_scan_of_files_can_be_stopped() -> None:
    """FOUND W13: what waits in its queue is dropped."""
    signals, seen = StopSignals(), []

    def look(number: int) -> int:
        seen.append(number)
        if number == 20:
            signals.pending = signal.SIGTERM
        time.sleep(0.001)
        return number

    with stopping.watched(signals), pytest.raises(stopping.Stopped):
        list(in_threads(look, 4000))
    assert len(seen) < 1000
