"""What a run folder holds, and when a run may write to it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entprop_fast import checkpoint
from entprop_fast.checkpoint import write_atomically
from entprop_fast.run.errors import UsageError, one_line

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
MODEL = "model.safetensors"
SUMMARY = "summary.json"
CURVES = "curves.png"
CORRUPTIONS = "corruptions.png"
EXAMPLES = "examples.png"

_CHECKPOINTS = (checkpoint.CURRENT, checkpoint.PREVIOUS, checkpoint.CORRUPT)
_FILES = (CONFIG, METRICS, *_CHECKPOINTS, MODEL, SUMMARY, CURVES, CORRUPTIONS, EXAMPLES)

Row = dict[str, Any]


class RunFolder:
    """A folder that becomes a run's once its first step has succeeded, never before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: list[Path] = []

    def __truediv__(self, name: str) -> Path:
        return self.path / name

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
        """Make the folder and make sure that it can be written.

        Raises:
            UsageError: it cannot.
        """
        try:
            missing = [one for one in (self.path, *self.path.parents) if not one.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = missing
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(b"\0")
        except OSError as error:
            self.release()
            raise UsageError(
                f"run folder {self.path} cannot be written: {one_line(error)}"
            ) from error

    def release(self) -> None:
        """Remove the folders that `claim` made, as long as nothing was put in them."""
        for made in self._made:
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()
        self._made = []

    def begin(self, config_toml: str, rows: Sequence[Row] = (), *, fresh: bool) -> None:
        """Write the settings and the rows so far; a fresh run removes an older run's files."""
        if fresh:
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)
        write_atomically(self.path / CONFIG, config_toml.encode())
        self.write_rows(rows)

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Make the metrics file hold exactly these rows."""
        lines = "".join(f"{json.dumps(_plain(row), allow_nan=False)}\n" for row in rows)
        write_atomically(self.path / METRICS, lines.encode())

    def append_row(self, row: Row) -> None:
        """Add an epoch's row to the metrics file."""
        with (self.path / METRICS).open("a") as file:
            file.write(f"{json.dumps(_plain(row), allow_nan=False)}\n")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a readable JSON file, atomically."""
    write_atomically(path, (json.dumps(_plain(values), indent=2, allow_nan=False) + "\n").encode())


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null says that there was nothing to average."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
