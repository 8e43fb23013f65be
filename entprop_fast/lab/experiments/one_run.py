"""Do one run of many in its folder, and say what it came to."""

from __future__ import annotations

import contextlib
import json
import traceback
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from entprop_fast.lab import lease_file
from entprop_fast.lab.files import write_json
from entprop_fast.lab.lease import Lost
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.engine import train
from entprop_fast.lab.training.errors import (
    FolderInUse,
    RunFailed,
    TakenOver,
    UsageError,
    machine_failed,
    one_line,
)
from entprop_fast.lab.training.run_folder import FAILED, RunFolder

Record = dict[str, Any]  # what is kept of a finished run: its summary.json, or more
Mark = tuple[tuple[str, int, int], ...]  # of a folder: another one, once a run ended there
Failure = dict[str, str]


def train_run(config: Config, reporter: Reporter) -> Record:
    """Train a run as the train command does, from where its folder stands; its summary."""
    return asdict(train(config, resume=True, reporter=reporter))


@dataclass(frozen=True)
class Run:
    """Hold one of many runs.

    Attributes:
        variant: settings that it shares with the runs of other seeds, by name.
        seed: of the run.
        config: all settings; it names the folder.
        work: goes on with what the folder holds, in any process, and returns the record.
    """

    variant: str
    seed: int
    config: Config
    work: Callable[[Config, Reporter], Record] = train_run

    @property
    def folder(self) -> Path:
        """Run folder."""
        return self.config.folder

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self.variant}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """Hold the record of a run, or why there is none.

    Attributes:
        record: of a run that is finished.
        error: of one that failed.
        fault: it was ours or the device's; the process is not used for another run.
        held: the machine that holds the run's folder, which is not this one; nothing else is known.
        elsewhere: another machine did the run.
    """

    record: Record | None = None
    error: str | None = None
    fault: bool = False
    held: str | None = None
    elsewhere: bool = False


def outcome_of(run: Run, mark: Mark, reporter: Reporter) -> Outcome:
    """Do a run while this process holds its folder.

    Args:
        run: to do.
        mark: of its folder when it was found free; with another one, another machine has been at
            work there, and nothing is done.
        reporter: hears how far it is.
    """
    try:
        with RunFolder(run.folder).claimed(wait="not"):
            if mark_of(run.folder) != mark:
                return Outcome(held="another machine")
            (run.folder / FAILED).unlink(missing_ok=True)
            outcome = _tried(run, reporter)
            if outcome.error is not None:
                record_failure(run.folder, outcome.error)
            return outcome
    except (FolderInUse, TakenOver) as other:
        return Outcome(held=other.host)
    except UsageError as error:
        return Outcome(error=one_line(error))


def mark_of(folder: Path) -> Mark:
    """Describe the files that say how far a run has come."""
    found = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError):  # it was replaced just now
            status = path.stat()
            found.append((path.name, status.st_ino, status.st_mtime_ns))
    return tuple(sorted(found))


def record_failure(folder: Path, error: str) -> None:
    """Tell other machines that they need not try the run; do nothing where it is another's."""
    about = {"error": error, "host": lease_file.machine().host, "failure": uuid.uuid4().hex}
    holding = RunFolder(folder).claimed(wait="not")
    with contextlib.suppress(OSError, FolderInUse), holding:  # a disk that is full
        write_json(folder / FAILED, about)


def failure_of(folder: Path) -> Failure | None:
    """Read why the run in a folder failed; None where it did not."""
    try:
        found = json.loads((folder / FAILED).read_bytes())
        return {name: str(found[name]) for name in ("error", "host", "failure")}
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _tried(run: Run, reporter: Reporter) -> Outcome:
    try:
        return Outcome(record=run.work(run.config, reporter))
    except (TakenOver, Lost):
        raise
    except (UsageError, RunFailed) as error:
        return Outcome(error=one_line(error))
    except Exception as error:  # the others go on, and the traceback is shown
        if (reason := machine_failed(error)) is not None:
            return Outcome(error=reason)
        traceback.print_exc()
        return Outcome(error=f"{type(error).__name__}: {one_line(error)}", fault=True)
