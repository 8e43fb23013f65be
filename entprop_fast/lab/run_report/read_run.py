"""Read a run's folder for a report: anybody may have written it, and it may not be finished."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entprop_fast.lab import checkpoint
from entprop_fast.lab.training import run_folder
from entprop_fast.lab.training.errors import one_line

_LARGEST = 1e30  # of a number: an axis ends somewhere
_NEEDED = (run_folder.CONFIG, run_folder.METRICS, run_folder.SUMMARY, checkpoint.CURRENT)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Hold what ``summary.json`` says of a finished run; None or empty where it does not."""

    sa: float | None = None
    ra: float | None = None
    hscore: float | None = None
    cost: float | None = None
    images_per_second: float | None = None
    seconds: float | None = None
    train_size: float | None = None
    parameters: float | None = None
    captured: bool | None = None
    device: str = ""
    processes: float | None = None
    corruption_source: str = ""
    corruptions: dict[str, list[float]] = field(default_factory=dict)
    shifts: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Hold what the readable files of a run's folder say.

    Attributes:
        folder: of the run.
        name: of the run in the report, no two alike.
        settings: of ``config.toml`` by name, the method's options among them.
        rows: of the epochs so far, their numbers only.
        signatures: what the trainer named in an epoch, (epoch, name).
        finished: whether the run has its summary.
        scores: empty before that.
        notes: what could not be read.
    """

    folder: Path
    name: str
    settings: dict[str, Any]
    rows: list[dict[str, float]]
    signatures: list[tuple[float, str]]
    finished: bool
    scores: Scores
    notes: list[str]

    @property
    def epochs_done(self) -> int:
        """Return how many epochs are whole."""
        return len(self.rows)

    @property
    def epochs_planned(self) -> str:
        """Return how many epochs the settings ask for, ``?`` where they do not say."""
        return str(self.settings.get("epochs", "?"))

    @property
    def sa(self) -> float | None:
        """Return SA, in percent: the final one, or that of the last epoch so far."""
        if self.finished:
            return self.scores.sa
        return self.rows[-1].get("sa") if self.rows else None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders.

    Raises:
        FileNotFoundError: one is not there.
        ValueError: one is no run's folder, or is given twice.
    """
    seen: dict[Path, Path] = {}
    for folder in folders:
        if not folder.exists():
            raise FileNotFoundError(f"run {str(folder)!r}: there is no such folder")
        if not folder.is_dir():
            raise ValueError(f"run {str(folder)!r} is a file: name the folder of the run")
        if not any((folder / name).exists() for name in _NEEDED):
            raise ValueError(f"run {str(folder)!r} holds none of {', '.join(_NEEDED)}")
        if folder.resolve() in seen:
            raise ValueError(f"run {str(folder)!r} is given twice")
        seen[folder.resolve()] = folder
    names = _distinct(list(seen))
    return [_read(given, name) for given, name in zip(seen.values(), names, strict=True)]


def _distinct(paths: Sequence[Path]) -> list[str]:
    """Name folders by their last part, or by as many as tell all of them apart."""
    depth = 1
    longest = max(len(path.parts) for path in paths)
    while depth < longest and len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return [str(Path(*path.parts[-depth:])) for path in paths]


def _read(folder: Path, name: str) -> Run:
    notes: list[str] = []
    rows, signatures = _rows(folder / run_folder.METRICS, notes)
    scores = _scores(folder / run_folder.SUMMARY, notes)
    return Run(
        folder=folder,
        name=name,
        settings=_settings(folder / run_folder.CONFIG, notes),
        rows=rows,
        signatures=signatures,
        finished=scores is not None,
        scores=scores or Scores(),
        notes=notes,
    )


def _text(path: Path, notes: list[str]) -> str | None:
    """Read a file; note why it cannot be, unless it is not there."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        notes.append(f"{path.name} cannot be read: {one_line(error)}")
        return None


def _settings(path: Path, notes: list[str]) -> dict[str, Any]:
    text = _text(path, notes)
    if text is None:
        notes.append(f"{path.name} is missing: settings are not known")
        return {}
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        notes.append(f"{path.name} is not TOML: {one_line(error)}")
        return {}
    tables = table.pop("method", {})
    if not isinstance(tables, dict):
        return {"method": tables} | table
    method = tables.get("name", "")
    options = tables.get(method, {}) if isinstance(method, str) else {}
    return {"method": method} | table | (options if isinstance(options, dict) else {})


def _rows(path: Path, notes: list[str]) -> tuple[list[dict[str, float]], list[tuple[float, str]]]:
    rows, signatures, broken = [], [], 0
    for line in (_text(path, notes) or "").splitlines():
        record = _parsed(line)
        numbers = {} if record is None else _numbers(record)
        if record is None or "epoch" not in numbers:
            broken += 1
            continue
        rows.append(numbers)
        named = record.get("signatures")
        for one in named if isinstance(named, list) else ():
            signatures.append((numbers["epoch"], str(one)))
    if broken:
        notes.append(f"{path.name}: lines that hold no epoch are left out ({broken})")
    return rows, signatures


def _scores(path: Path, notes: list[str]) -> Scores | None:
    text = _text(path, notes)
    if text is None:
        return None
    saved = _parsed(text)
    if saved is None:
        notes.append(f"{path.name} is not the JSON of a summary")
        return None
    numbers = _numbers(saved)
    captured = saved.get("captured")
    return Scores(
        sa=numbers.get("sa"),
        ra=numbers.get("ra"),
        hscore=numbers.get("hscore"),
        cost=numbers.get("cost"),
        images_per_second=numbers.get("images_per_second"),
        seconds=numbers.get("seconds"),
        train_size=numbers.get("train_size"),
        parameters=numbers.get("parameters"),
        captured=captured if isinstance(captured, bool) else None,
        device=str(saved.get("device", "")),
        processes=numbers.get("processes"),
        corruption_source=str(saved.get("corruption_source", "")),
        corruptions=_corruptions(saved.get("corruptions"), path, notes),
        shifts=_shifts(saved.get("shifts")),
    )


def _corruptions(saved: object, path: Path, notes: list[str]) -> dict[str, list[float]]:
    found = {}
    for kind, values in saved.items() if isinstance(saved, dict) else ():
        accuracies = values if isinstance(values, list) else []
        if accuracies and all(_is_number(one) and 0 <= one <= 100 for one in accuracies):
            found[kind] = [float(one) for one in accuracies]
        else:
            notes.append(f"{path.name}: the accuracies of {kind!r} are no percentages")
    return found


def _shifts(saved: object) -> dict[str, dict[str, float]]:
    found = saved.items() if isinstance(saved, dict) else ()
    return {name: _numbers(one) for name, one in found if isinstance(one, dict)}


def _parsed(text: str) -> dict[str, Any] | None:
    """Read a JSON object; None for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # lists within lists, made to be read
        return None
    return found if isinstance(found, dict) else None


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record.items() if _is_number(value)}


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST  # False for NaN
