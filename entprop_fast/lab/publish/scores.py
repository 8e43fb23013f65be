"""Read what a run measured of its network."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from entprop_fast.lab.training import run_folder
from entprop_fast.options import create, option, options_of


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Hold a run's scores and how they came about; None and empty: nobody measured or noted it.

    `shifts` are accuracies in percent, by the names of further test sets of the same classes.
    """

    sa: float | None = option(None)
    ra: float | None = option(None)
    hscore: float | None = option(None)
    corruption_source: str = option("")
    method: str = option("")
    seed: int | None = option(None)
    epochs: int | None = option(None)
    train_size: int | None = option(None)
    cost: float | None = option(None)
    shifts: dict[str, float] = field(default_factory=dict)


def read_scores(path: Path) -> Scores:
    """Read the scores of the network that `load_plain` takes from `path`.

    Those of a run are of its ``model.safetensors``, not of a checkpoint.

    Raises:
        ValueError: the summary is damaged; the message names it.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / run_folder.MODEL).exists() or path not in (folder, folder / run_folder.MODEL):
        return Scores()
    file = folder / run_folder.SUMMARY
    if not file.exists():
        return Scores()
    try:
        found = json.loads(file.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not a table")
        known = options_of(Scores).keys()
        scores = create(Scores, {name: found[name] for name in known & found.keys()})
        return replace(scores, shifts=_accuracies(found.get("shifts")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _accuracies(shifts: Any) -> dict[str, float]:
    """Take the accuracies out of a summary's ``shifts``, which one of an earlier version lacks."""
    if shifts is None:
        return {}
    try:
        found = {str(name): one["accuracy"] for name, one in shifts.items()}
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"shifts={shifts!r}: a table of tables with accuracy expected") from error
    for name, accuracy in found.items():
        number = isinstance(accuracy, int | float) and not isinstance(accuracy, bool)
        if not number or not 0 <= accuracy <= 100:  # NaN as well
            raise ValueError(f"shifts: the accuracy of {name!r} is {accuracy!r}, no percentage")
    return {name: float(accuracy) for name, accuracy in found.items()}
