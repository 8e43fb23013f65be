"""Write a run's rows where other tools read them: CSV, TensorBoard, Weights & Biases.

`metrics.jsonl` is the record, whoever else listens. A logger holds each epoch once, also of a run
that was killed and resumed: CSV and TensorBoard are written anew from the record, and W&B is sent
what it has not had.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from entprop_fast.lab import files
from entprop_fast.lab.training.run_folder import EVENTS, METRICS_CSV, TENSORBOARD, WANDB, Row
from entprop_fast.name_errors import unknown
from entprop_fast.optional import require

NAMES = ("csv", "tensorboard", "wandb")

WITHOUT_ACCOUNT = ("offline", "disabled", "dryrun")  # values of WANDB_MODE
_MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}
_OFFLINE = "(WANDB_MODE=offline needs no account)"
PROJECT = "entprop_fast"  # of W&B, where WANDB_PROJECT names none


class Logger(Protocol):
    """Take the rows of a run, one after each epoch."""

    def write(self, row: Row) -> None:
        """Take one row."""

    def finish(self, scores: Mapping[str, float]) -> None:
        """Take the run's final scores."""

    def close(self) -> None:
        """Let go of files and processes."""


def log_option(value: Any) -> str | None:
    """Check the option ``log`` and return it as a text of names.

    Raises:
        TypeError, ValueError: it is not valid.
    """
    if value is None:
        return None
    if not isinstance(value, str | list | tuple):
        raise TypeError(f"log={value!r}: expected names of {', '.join(NAMES)}, or None")
    names = names_of(value)
    for name in names:
        if name not in NAMES:
            raise unknown("log", name, NAMES)
    return ",".join(names) or None


def names_of(log: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names in the option ``log``, each once."""
    words = log.split(",") if isinstance(log, str) else [*(log or ())]
    return tuple(dict.fromkeys(str(word).strip() for word in words if str(word).strip()))


def check_ready(log: str | Sequence[str] | None) -> None:
    """Refuse to begin without what the loggers need.

    Raises:
        ImportError: a library is not installed; the message names the extra.
        ValueError: W&B has no account to send to.
    """
    for name in names_of(log):
        if name != "csv":
            require(name, extra="loggers", purpose=f"--log {name}")
            importlib.import_module(_MODULES[name])
        if name == "wandb" and os.environ.get("WANDB_MODE", "online") not in WITHOUT_ACCOUNT:
            wandb: Any = importlib.import_module("wandb")
            try:
                wandb.login()
            except wandb.Error as error:
                raise ValueError(f"log='wandb': {error} {_OFFLINE}") from error


def open_logger(
    name: str, folder: Path, settings: Mapping[str, Any], rows: Sequence[Row]
) -> Logger:
    """Open a logger of a run, and bring it up to the rows so far.

    Args:
        name: one of `NAMES`.
        folder: the run's.
        settings: of the run.
        rows: of the epochs so far.
    """
    if name == "csv":
        return CsvLog(folder / METRICS_CSV, rows)
    if name == "tensorboard":
        return TensorBoardLog(folder, rows)
    return WandbLog(folder, settings, rows)


class Loggers:
    """Hold the loggers of a run.

    Args:
        log: their names.
        settings: of the run.

    Raises:
        ImportError: see `check_ready`.
    """

    def __init__(self, log: str | Sequence[str] | None, settings: Mapping[str, Any]) -> None:
        self._names, self._settings = names_of(log), settings
        self._open: list[Logger] = []
        check_ready(log)

    def open(self, folder: Path, rows: Sequence[Row]) -> None:
        """Open them in the run's folder, up to the rows so far."""
        for name in self._names:
            self._open.append(open_logger(name, folder, self._settings, rows))

    def write(self, row: Row) -> None:
        """Give each an epoch's row."""
        for one in self._open:
            one.write(row)

    def finish(self, scores: Mapping[str, float | None]) -> None:
        """Give each the final scores; None is none."""
        known = {name: value for name, value in scores.items() if value is not None}
        for one in self._open:
            one.finish(known)

    def close(self) -> None:
        """Close those that are open."""
        while self._open:
            self._open.pop().close()


class CsvLog:
    """Write ``metrics.csv``: a line for each epoch below the names of the columns."""

    def __init__(self, path: Path, rows: Sequence[Row]) -> None:
        self.path = path
        self.columns = list(dict.fromkeys(name for row in rows for name in row))
        files.write_atomically(path, self._lines(rows, header=bool(rows)).encode())

    def write(self, row: Row) -> None:
        """Add a line."""
        header = not self.columns
        self.columns = self.columns or list(row)
        with files.append(self.path) as file:
            file.write(self._lines([row], header=header).encode())

    def finish(self, scores: Mapping[str, float]) -> None:
        """Do nothing: they are in ``summary.json``."""

    def close(self) -> None:
        """Do nothing: the file is closed after each line."""

    def _lines(self, rows: Sequence[Row], *, header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        return text.getvalue()


class TensorBoardLog:
    """Write scalars by epoch to the folder ``tensorboard`` of the run."""

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        tensorboard: Any = importlib.import_module("torch.utils.tensorboard")
        place = files.folder_within(folder, TENSORBOARD)
        for old in place.glob(EVENTS):
            old.unlink()
        self._writer = tensorboard.SummaryWriter(str(place))
        last = rows[-1]["seconds"] if rows else 0.0
        for row in rows:
            self._add(row, time.time() - (last - row["seconds"]))
        self._writer.flush()

    def write(self, row: Row) -> None:
        """Add the row's numbers."""
        self._add(row, time.time())
        self._writer.flush()

    def finish(self, scores: Mapping[str, float]) -> None:
        """Add the scores of the deployed network, beside the epochs'."""
        for name, value in scores.items():
            self._writer.add_scalar(f"final/{name}", value)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _add(self, row: Row, wall_time: float) -> None:
        for name, value in _numbers(row).items():
            if name != "epoch":
                self._writer.add_scalar(name, value, row["epoch"], walltime=wall_time)


class WandbLog:
    """Send rows to Weights & Biases, by epoch; ``WANDB_MODE=offline`` keeps them in the folder.

    ``wandb.json`` in the folder holds the run's id, and how many epochs it has been sent.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], rows: Sequence[Row]) -> None:
        self._state = folder / WANDB
        self.id, self.epochs = self._known()
        wandb: Any = importlib.import_module("wandb")
        files.folder_within(folder, "wandb")  # which W&B would write to through a link, too
        quiet = wandb.Settings(console="off", silent=True, disable_git=True)
        try:
            self._run = wandb.init(
                id=self.id,
                resume="allow",
                project=None if "WANDB_PROJECT" in os.environ else PROJECT,
                name=folder.name,
                dir=str(folder),
                config=dict(settings),
                settings=quiet,
            )
        except wandb.Error as error:
            raise OSError(f"log='wandb': {error} {_OFFLINE}") from error
        self._keep()
        for row in rows:
            self.write(row)

    def write(self, row: Row) -> None:
        """Send the row, unless that was done before."""
        if row["epoch"] > self.epochs:
            self._run.log(_numbers(row), step=row["epoch"])
            self.epochs = row["epoch"]
            self._keep()

    def finish(self, scores: Mapping[str, float]) -> None:
        """Send the scores of the deployed network."""
        self._run.summary.update({f"final/{name}": value for name, value in scores.items()})

    def close(self) -> None:
        """End the run there; resumed, it goes on."""
        self._run.finish()

    def _known(self) -> tuple[str, int]:
        """Return the run's id there and the epochs that it was sent; new ones for a new run."""
        if not self._state.is_file():
            return uuid.uuid4().hex[:8], 0
        try:
            kept = json.loads(self._state.read_text())
            return str(kept["id"]), int(kept["epochs"])
        except (ValueError, TypeError, LookupError) as error:
            raise OSError(f"{self._state} is damaged, remove it to begin anew: {error}") from None

    def _keep(self) -> None:
        files.write_json(self._state, {"id": self.id, "epochs": self.epochs})


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that a curve can show."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    return "" if isinstance(value, float) and not math.isfinite(value) else value
