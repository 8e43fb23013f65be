"""Write a run's folder: what it holds, and when a run may write to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from entprop_fast.lab import checkpoint, files
from entprop_fast.lab.evaluation.metrics import NaNLogits
from entprop_fast.lab.evaluation.saved_counts import COUNTS
from entprop_fast.lab.files import json_lines, write_atomically
from entprop_fast.lab.training.errors import RunFailed, UsageError, machine_failed, one_line

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
METRICS_CSV = "metrics.csv"
TENSORBOARD = "tensorboard"  # a folder of
EVENTS = "events.out.tfevents.*"
WANDB = "wandb.json"  # beside W&B's own folder
BEST = "best.pt"
MODEL = "model.safetensors"
SUMMARY = "summary.json"
CURVES = "curves.png"
CORRUPTIONS = "corruptions.png"
EXAMPLES = "examples.png"
REPORT = "report.html"  # of `python -m entprop_fast.report`
LOCK = ".lock"  # there while a process writes; a killed one leaves it behind, held by nobody

_CHECKPOINTS = (checkpoint.CURRENT, checkpoint.PREVIOUS, checkpoint.CORRUPT)
_FILES = (
    *(CONFIG, METRICS, *_CHECKPOINTS, BEST, MODEL, SUMMARY, CURVES, CORRUPTIONS, EXAMPLES),
    *(METRICS_CSV, WANDB, REPORT),
)

Row = dict[str, Any]


class RunFolder:
    """Keep a folder, which becomes a run's once its first step has succeeded, never before.

    Args:
        path: of the folder.
        lasting: it is there after the run, for messages to name.
    """

    def __init__(self, path: Path, *, lasting: bool = True) -> None:
        self.path, self.lasting = path, lasting
        self._made: list[Path] = []
        self._lock: IO[bytes] | None = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def known_as(self) -> str:
        """The folder's path from the root, by which a job that is restarted knows it."""
        return os.path.abspath(self.path)

    def check_free(self) -> None:
        """Refuse a folder that holds a run.

        Raises:
            UsageError: it does; the message names the flags that allow it. Or it cannot be read.
        """
        try:
            held = [name for name in _FILES if (self.path / name).exists()]
        except OSError as error:
            raise UsageError(f"run folder {self.path} cannot be read: {one_line(error)}") from error
        if held:
            raise UsageError(
                f"{self.path} already holds a run ({held[0]}): continue it with --resume, "
                "replace it with --overwrite, or name another folder with --out"
            )

    def claim(self) -> None:
        """Make the folder, make sure that it can be written, and keep other processes out of it.

        Raises:
            UsageError: it cannot, or another process writes to it.
        """
        try:
            if self.path.is_symlink() and not self.path.exists():
                raise UsageError(f"run folder {self.path} is a link that leads to nothing")
            missing = [one for one in (self.path, *self.path.parents) if not one.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = missing
            lock = files.open_lock(self.path / LOCK)
            if not _take(lock):
                lock.close()
                raise UsageError(
                    f"another process writes to the run folder {self.path}: wait for its end, or "
                    "name another folder with --out"
                )
            self._lock = lock
            lock.write(b"\0")  # a disk without room says so before the work
        except OSError as error:
            self.release()
            raise UsageError(
                f"run folder {self.path} cannot be written: {one_line(error)}"
            ) from error

    def release(self) -> None:
        """Let others in; remove the folders that `claim` made, if nothing was put in them."""
        if self._lock is not None:
            (self.path / LOCK).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None
        for made in self._made:
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()
        self._made = []

    def clear(self) -> None:
        """Remove the files of a run."""
        files_of_run = (self.path / name for name in _FILES)
        older = checkpoint.newest_first(self.path)
        for path in (*files_of_run, *older, *self.path.glob(COUNTS)):
            path.unlink(missing_ok=True)
        if not (self.path / TENSORBOARD).is_symlink():
            for events in (self.path / TENSORBOARD).glob(EVENTS):
                events.unlink()

    def begin(self, config_toml: str, rows: Sequence[Row] = (), *, fresh: bool) -> None:
        """Write the settings and the rows so far; a fresh run removes an older run's files."""
        if fresh:
            self.clear()
        write_atomically(self.path / CONFIG, config_toml.encode())
        self.write_rows(rows)

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Make the metrics file hold exactly these rows."""
        write_atomically(self.path / METRICS, json_lines(rows).encode())

    def append_row(self, row: Row) -> None:
        """Add an epoch's row to the metrics file."""
        with files.append(self.path / METRICS) as file:
            file.write(json_lines([row]).encode())


@contextlib.contextmanager
def last_good_named(folder: RunFolder) -> Iterator[None]:
    """Turn what fails within into a `RunFailed` that names the last good checkpoint."""
    try:
        yield
    except (RunFailed, NaNLogits, OSError) as error:  # an image is gone, a disk full
        raise RunFailed(f"{error}; {_last_good(folder)}") from None
    except (RuntimeError, MemoryError) as error:
        if (reason := machine_failed(error)) is None:
            raise
        raise RunFailed(f"{reason}; {_last_good(folder)}") from None


def _last_good(folder: RunFolder) -> str:
    if not folder.lasting:
        return "nothing is kept, because no folder was named"
    kept = folder / checkpoint.CURRENT
    return f"the last good checkpoint is {kept}" if kept.exists() else "no checkpoint was saved yet"


def _take(lock: IO[bytes]) -> bool:
    """Take the lock for this process, if no other one has it.

    A lock of `fcntl`, not of `flock`: processes that were forked to read images have none, and so
    a killed run can be resumed before they have noticed.
    """
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # either, says POSIX
        return False
    except OSError:  # a file system without locks
        return True
    return os.fstat(lock.fileno()).st_nlink > 0  # else its owner was just about to end
