"""Faults that drills put into a run: at any call of a save, in any step, in a reader."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.utils.data import Dataset

from entprop_fast.lab import checkpoint, files
from entprop_fast.lab.cli import train
from entprop_fast.lab.training.trainer import Trainer
from tests.children import end_with_parent

FORK = multiprocessing.get_context("fork")
Act = Callable[[], object]


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class SaveFault:
    """Let something happen at one call of one save: before it, or half-way through a write.

    Args:
        patch: undoes it.
        save: number of the run's save, from 0.
        call: number of the call in it, from 0: making a file, each write, sync and rename.
        act: happens.

    Attributes:
        calls: of that save, so far.
    """

    def __init__(self, patch: pytest.MonkeyPatch, save: int, call: int, act: Act) -> None:
        self.calls = 0
        self._save, self._call, self._act = save, call, act
        self._saves, self._armed = 0, False
        patch.setattr(checkpoint, "save", self._watched(checkpoint.save))
        for name in ("fsync", "replace"):
            patch.setattr(os, name, self._before(getattr(os, name)))
        patch.setattr(files, "create_new", self._before(self._files(files.create_new)))

    def _watched(self, save: Callable[..., None]) -> Callable[..., None]:
        def watched(*args: Any) -> None:
            self._armed = self._saves == self._save
            self._saves += 1
            try:
                save(*args)
            finally:
                self._armed = False

        return watched

    def _files(self, create: Callable[..., Any]) -> Callable[..., Any]:
        def made(path: Path) -> Any:
            file = create(path)
            return _File(file, self) if self._armed else file

        return made

    def _before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def then(*args: Any) -> Any:
            self.happens()
            return call(*args)

        return then

    def happens(self, half: Act | None = None) -> None:
        if not self._armed:
            return
        self.calls += 1
        if self.calls == self._call + 1:
            if half is not None:
                half()
            self._act()


class _File:
    """A file each of whose writes may stop half-way."""

    def __init__(self, file: Any, fault: SaveFault) -> None:
        self._file, self._fault = file, fault

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: Any) -> None:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._fault.happens(half)
        self._file.write(data)


def broken_after(patch: pytest.MonkeyPatch, *steps: int) -> None:
    """Make a weight NaN after some steps of the coming runs, counted from 1."""
    original = Trainer._train_batch

    def train_batch(self: Trainer, *batch: Any) -> bool:
        step = self.step_of(self.batch)
        full = original(self, *batch)
        if step in steps and self.accumulation.whole(self.batch):
            next(self.model.parameters()).data.view(-1)[0] = float("nan")
        return full

    patch.setattr(Trainer, "_train_batch", train_batch)


class HangingImages(Dataset[tuple[Tensor, Tensor]]):
    """Of which a process may read some; what comes then takes for ever, or fails."""

    left = 20
    fails = False
    note: Path | None = None  # touched as that begins

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.left -= 1
        if self.left < 0 and self.note is not None:
            self.note.touch()
        if self.left < 0 and self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO), f"image {index}")
        if self.left < 0:
            time.sleep(600)
        return self.images[index], self.labels[index]


def train_in_child(arguments: list[str], prepare: Callable[[pytest.MonkeyPatch], object]) -> int:
    """Train in a process of its own, with faults that `prepare` puts in; return its exit code."""

    def child() -> None:
        end_with_parent()
        prepare(pytest.MonkeyPatch())
        os._exit(train.main(arguments))

    process = FORK.Process(target=child)
    process.start()
    process.join(60)
    hangs = process.is_alive()
    process.kill()
    process.join()
    assert not hangs
    assert process.exitcode is not None
    return process.exitcode
