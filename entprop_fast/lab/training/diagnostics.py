"""Recognise and name the failures that EntProp runs show in their curves.

Each is looked for in the rows of the epochs so far, holds for `PATIENCE` epochs in a row before it
is named, and is named once in a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

PATIENCE = 3  # epochs in a row: one bad epoch is noise
SETTLING = 0.1  # share of the run before which nothing is judged

SEPARATION = 1.05  # selected over unselected entropy; 1 is no separation
DIVERGENCE = 2.0  # auxiliary loss over its lowest
SA_DROP = 5.0  # points below the best SA
OVERFIT_GAP = 15.0  # points between accuracy on training images and SA

Row = dict[str, Any]
Test = Callable[[Row, Sequence[Row], int], bool]


def detect(rows: Sequence[Row], *, epochs: int, num_classes: int) -> list[str]:
    """Return the names of the failures that show in the last epochs and were not named before.

    Args:
        rows: of all epochs so far; what was named before is in their ``signatures``.
        epochs: of the whole run.
        num_classes: a loss above its logarithm is worse than a guess.
    """
    first = max(0, len(rows) - PATIENCE)
    if len(rows) < PATIENCE or first < SETTLING * epochs:
        return []
    named = {name for row in rows for name in row.get("signatures", ())}
    return [
        name
        for name, shows in _TESTS.items()
        if name not in named
        and all(shows(rows[i], rows[:i], num_classes) for i in range(first, len(rows)))
    ]


def describe(name: str, row: Row) -> str:
    """Write one line for the log: what was seen, in numbers, and what to try."""
    return f"{name}: {_WORDS[name].format(**row)}"


def _unseparated(row: Row, before: Sequence[Row], num_classes: int) -> bool:
    selected, unselected = row["entropy_selected"], row["entropy_unselected"]
    return bool(selected < SEPARATION * unselected)  # False for NaN: a method that selects nothing


def _diverging(row: Row, before: Sequence[Row], num_classes: int) -> bool:
    lowest = min((one["aux_loss"] for one in before), default=math.inf)
    return bool(row["aux_loss"] > max(DIVERGENCE * lowest, math.log(num_classes)))


def _falling(row: Row, before: Sequence[Row], num_classes: int) -> bool:
    best = max((one["sa"] for one in before), default=0.0)
    return bool(row["sa"] < best - SA_DROP)


def _overfitting(row: Row, before: Sequence[Row], num_classes: int) -> bool:
    best = max((one["sa"] for one in before), default=0.0)
    return bool(row["gap"] > OVERFIT_GAP and row["sa"] <= best)


_TESTS: dict[str, Test] = {
    "entropy does not separate": _unseparated,
    "diverging auxiliary loss": _diverging,
    "falling SA": _falling,
    "overfitting": _overfitting,
}

_WORDS = {
    "entropy does not separate": (
        "{entropy_selected:.3f} nats of the selected rows against {entropy_unselected:.3f} of the "
        "others; the selection tells nothing apart (a smaller k, or another score)"
    ),
    "diverging auxiliary loss": (
        f"{{aux_loss:.3f}}, worse than a guess and more than {DIVERGENCE:g} times its lowest; "
        "the perturbation is too strong (a smaller eps or alpha)"
    ),
    "falling SA": (
        f"{{sa:.1f}} %, more than {SA_DROP:g} points below its best "
        "(a smaller lr, or a smaller aux_weight, k or eps)"
    ),
    "overfitting": (
        "{train_accuracy:.1f} % on training images against {sa:.1f} % on test images, and SA no "
        "longer rises (fewer epochs, more weight decay or MixUp)"
    ),
}
