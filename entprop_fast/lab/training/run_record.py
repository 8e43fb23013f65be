"""Check a run's record in a checkpoint before it is used, for anybody may have written it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from entprop_fast.lab import job
from entprop_fast.lab.training.errors import NotFinite

# What pictures, summaries and diagnostics read of an epoch's row, a number each.
ROW = (
    *("epoch", "step", "loss", "aux_loss", "entropy_selected", "entropy_unselected", "lr"),
    *("train_accuracy", "sa", "gap", "images_per_second", "train_seconds", "seconds"),
)


def check(state: Mapping[str, Any], *, epochs: int, batches: int) -> None:
    """Refuse what would fail epochs later: a place beyond the run, rows that lack a number.

    Args:
        state: of a `Trainer`.
        epochs: of the run.
        batches: of an epoch.

    Raises:
        ValueError: what is refused; other errors where `state` has another form.
    """
    for name, most in (("epoch", epochs), ("batch", batches)):
        if type(state[name]) is not int or not 0 <= state[name] <= most:
            raise ValueError(f"{name} is {state[name]!r}, the run has {most}")
    for name in ("train_seconds", "seconds"):
        if type(state[name]) is not float or not 0 <= state[name] < math.inf:
            raise ValueError(f"{name} is {state[name]!r}")
    counted = {"method's rows": state["method"]["rows"]} | {
        f"meter's {name}": value for part in state["meter"].values() for name, value in part.items()
    }
    for name, value in counted.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"the {name} is {value!r}")
    rows = state["rows"]
    if not isinstance(rows, list) or len(rows) != state["epoch"]:
        raise ValueError(f"rows are not those of {state['epoch']} epochs")
    for row in rows:
        if broken := [name for name in ROW if not isinstance(row[name], int | float)]:
            raise ValueError(f"a row's {broken[0]} is {row[broken[0]]!r}")


def check_finite(state: Mapping[str, Tensor], step: int) -> None:
    """Refuse weights that are no numbers.

    Raises:
        NotFinite: a tensor of any rank holds NaN or infinity; the message names it and the step.
    """
    finite = [value.isfinite().all() for value in state.values()]
    if bool(torch.stack(finite).all()):
        agree(None)
    else:
        broken = next(name for name, value in state.items() if not value.isfinite().all())
        agree((step, f"{broken} is NaN or infinite after step {step}"))


def agree(broken: tuple[int, str] | None) -> None:
    """Let the ranks tell what each found to be NaN or infinite: a step, and a sentence.

    Raises:
        NotFinite: one of them found something; in all of them, of the first step.
    """
    found = job.current().gather(broken)
    if len(found) > 1:
        found = [one and (one[0], f"{one[1]} (rank {rank})") for rank, one in enumerate(found)]
    if first := min((one for one in found if one is not None), default=None):
        step, reason = first
        raise NotFinite(reason, step)
