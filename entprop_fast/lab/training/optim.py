"""Create the optimisers and learning rates of the paper's tables.

The learning rate is a function of the step alone: nothing to save, nothing to restore, and it
reaches the optimiser whether its groups hold floats or device tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from entprop_fast import name_errors
from entprop_fast.lab.training.parameter_groups import SCALE

LearningRate = Callable[[int], float]
Learned = Iterable[nn.Parameter] | Iterable[dict[str, Any]]  # parameters, or groups of them

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("onecycle", "cosine", "step", "constant")

CAPTURE_FLAGS = ("fused", "foreach", "capturable")

_ONECYCLE_START = 25.0  # peak / first learning rate
_ONECYCLE_END = 1e4  # first / last learning rate


def create_optimizer(
    name: str,
    parameters: Learned,
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """Create the named optimiser; `momentum` and `nesterov` are SGD's alone.

    Raises:
        ValueError: a name that is not in `OPTIMIZERS`.
    """
    if name == "sgd":
        return torch.optim.SGD(
            parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
        )
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    raise name_errors.unknown("optimizer", name, OPTIMIZERS)


def learning_rate(
    schedule: str,
    *,
    peak: float,
    steps: int,
    steps_per_epoch: int,
    warmup: float = 0.1,
    warmup_epochs: float = 0.0,
    decay_every: int = 30,
) -> LearningRate:
    """Return the learning rate as a function of the step: 0, 1, ... ``steps - 1``.

    Args:
        schedule: ``onecycle`` (cosine up from ``peak / 25`` over the share ``warmup`` of all
            steps, cosine down to ``peak / 25e4``), ``cosine`` (to 0, set once an epoch),
            ``step`` (times 0.1 every ``decay_every`` epochs) or ``constant``.
        peak: the highest learning rate.
        steps: steps of the whole run.
        steps_per_epoch: for the schedules that move once an epoch.
        warmup: share of the run that ``onecycle`` rises for.
        warmup_epochs: epochs in which the rate of the other schedules is multiplied by a line that
            rises from one step's share to 1.
        decay_every: epochs between two drops of ``step``.

    Raises:
        ValueError: a name that is not in `SCHEDULES`.
    """
    if warmup_epochs:
        rise = max(1, round(warmup_epochs * steps_per_epoch))
        rate = learning_rate(
            schedule,
            peak=peak,
            steps=steps,
            steps_per_epoch=steps_per_epoch,
            decay_every=decay_every,
        )
        return lambda step: rate(step) * min(1.0, (step + 1) / rise)
    if schedule == "onecycle":
        return lambda step: _onecycle(step, peak, steps, warmup)
    if schedule == "cosine":
        epochs = max(1, steps // steps_per_epoch)
        return lambda step: _between(peak, 0.0, (step // steps_per_epoch) / epochs)
    if schedule == "step":
        return lambda step: peak * 0.1 ** (step // (decay_every * steps_per_epoch))
    if schedule == "constant":
        return lambda step: peak
    raise name_errors.unknown("schedule", schedule, SCHEDULES)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate, in place where it is a tensor (a graph may hold it).

    A group that has a scale gets its share of the rate.
    """
    for group in optimizer.param_groups:
        rate = lr * group.get(SCALE, 1.0)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def plain_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimiser's state as a run without captured steps has it, for any device.

    A capture sets flags and puts the lr into a device tensor; the next one does so again.
    """
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
        made = optimizer.defaults
        group.update({flag: made[flag] for flag in CAPTURE_FLAGS if flag in group})
    return state


def _onecycle(step: int, peak: float, steps: int, warmup: float) -> float:
    first = peak / _ONECYCLE_START
    top = max(warmup * steps - 1, 0)  # the step that runs at the peak, a fraction allowed
    if step < top:
        return _between(first, peak, step / top)
    return _between(peak, first / _ONECYCLE_END, (step - top) / max(steps - 1 - top, 1))


def _between(start: float, end: float, share: float) -> float:
    """Follow half a cosine from ``start`` (share 0) to ``end`` (share 1)."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
