"""Write a run's folder: what it holds, and when a run may write to it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from entprop_fast.lab import checkpoint, files, lease, lease_file, stopping
from entprop_fast.lab.evaluation.metrics import NaNLogits
from entprop_fast.lab.evaluation.saved_counts import COUNTS
from entprop_fast.lab.files import json_lines, write_atomically
from entprop_fast.lab.lease import Held, Lease, Lost
from entprop_fast.lab.training.errors import (
    FolderInUse,
    RunFailed,
    TakenOver,
    UsageError,
    machine_failed,
    one_line,
)

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
FAILED = "failed.json"  # of a run of many: why it ended

_TRIES = 20  # to make a folder that another process removes, empty, in the same moment
_CHECKPOINTS = (checkpoint.CURRENT, checkpoint.PREVIOUS, checkpoint.CORRUPT)
_FILES = (
    *(CONFIG, METRICS, *_CHECKPOINTS, BEST, MODEL, SUMMARY, CURVES, CORRUPTIONS, EXAMPLES),
    *(METRICS_CSV, WANDB, REPORT),
)

Row = dict[str, Any]
# What to do where another process holds a folder: nothing; find out whether it lives, for at most
# `lease_file.LASTS` seconds; wait until it has ended.
Wait = Literal["not", "for life", "for its end"]


Say = Callable[[str], None]


def say_nothing(line: str) -> None:
    """Take a line."""


class RunFolder:
    """Keep a folder, which becomes a run's once its first step has succeeded, never before.

    Args:
        path: of the folder.
        lasting: it is there after the run, for messages to name.
    """

    def __init__(self, path: Path, *, lasting: bool = True) -> None:
        self.path, self.lasting = path, lasting
        self._made: list[Path] = []
        self._lease: Lease | None = None

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

    @contextlib.contextmanager
    def claimed(self, say: Say = say_nothing, *, wait: Wait = "for life") -> Iterator[None]:
        """Hold the folder within; see `claim` and `held`."""
        self.claim(say, wait=wait)
        with self.held():
            yield

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold what was claimed within, and no longer.

        Raises:
            TakenOver: another process took it over, since this one showed no life.
        """
        try:
            yield
        except Lost as lost:
            raise TakenOver(str(lost), lost.host or "another process") from None
        finally:
            self.release()

    def claim(self, say: Say = say_nothing, *, wait: Wait = "for life") -> None:
        """Make the folder, make sure that it can be written, and keep other processes out of it.

        One that this process holds already it holds once more.

        Args:
            say: is told what is waited for.
            wait: what to do where a process of another machine holds it, which may be lost. One
                of this machine is known to live.

        Raises:
            FolderInUse: another process writes to it.
            UsageError: it cannot be made or written.
        """
        watch = lease_file.Watch(self.path)
        told = False
        while True:
            try:
                self._lease = self._take()
                return
            except OSError as error:
                self.release()
                raise UsageError(
                    f"run folder {self.path} cannot be written: {one_line(error)}"
                ) from error
            except Held as held:
                self.release()
                seen = watch.look()
                lives = watch.moved or held.seen.here
                if seen is not None and seen.ended:
                    lease_file.remove(self.path, seen.content)
                    continue
                if wait == "not" or (wait == "for life" and lives):
                    raise FolderInUse(
                        f"another process writes to the run folder {self.path} ({held}): wait for "
                        "its end, or name another folder with --out",
                        held.seen.host,
                    ) from None
                if not told:
                    told = True
                    say(f"{self.path} is held by {held}: waiting for a sign of life")
            stopping.check()
            time.sleep(min(1.0, lease_file.LASTS / 20))

    def _take(self) -> Lease:
        if self.path.is_symlink() and not self.path.exists():
            raise UsageError(f"run folder {self.path} is a link that leads to nothing")
        for _ in range(_TRIES):
            missing = [one for one in (self.path, *self.path.parents) if not one.exists()]
            self._made = missing
            with contextlib.suppress(FileNotFoundError):
                self.path.mkdir(parents=True, exist_ok=True)
                return lease.take(self.path)
        raise FileNotFoundError(f"{self.path} is removed again and again")

    def release(self) -> None:
        """Let others in; remove the folders that `claim` made, if nothing was put in them."""
        if self._lease is not None:
            lease.let_go(self._lease)
            self._lease = None
        for made in self._made:
            with contextlib.suppress(OSError):  # it is not empty, or gone
                made.rmdir()
        self._made = []

    def clear(self) -> None:
        """Remove the files of a run."""
        files_of_run = (self.path / name for name in (*_FILES, FAILED))
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
    kept = checkpoint.newest_first(folder.path)
    return f"the last good checkpoint is {kept[0]}" if kept else "no checkpoint was saved yet"
