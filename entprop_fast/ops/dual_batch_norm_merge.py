"""Merge the moments of several processes, and move running statistics by what they say."""

from typing import NamedTuple

import torch
from torch import Tensor

from entprop_fast.devices import widest_float
from entprop_fast.ops.library import call, define
from entprop_fast.ops.tensor_checks import FLOATING, require, require_apart, require_device

SCHEMA = (
    "dual_batch_norm_merge(Tensor gathered, Tensor(a!)? running_mean, Tensor(b!)? running_var, "
    "Tensor(c!)? num_batches, Tensor(d!)? aux_running_mean, Tensor(e!)? aux_running_var, "
    "Tensor(f!)? aux_num_batches, float? momentum, float? aux_momentum) "
    "-> (Tensor mean, Tensor variance, Tensor count)"
)


class Running(NamedTuple):
    """Hold the running statistics of a half that move; of one that stands still, none.

    Args:
        mean: [C] or None.
        variance: [C] or None.
        num_batches: int64 [], or None.
        momentum: None for a cumulative average, which needs `num_batches`.
    """

    mean: Tensor | None = None
    variance: Tensor | None = None
    num_batches: Tensor | None = None
    momentum: float | None = 0.0


Arguments = tuple[Tensor, Running, Running]


def _from_flat(
    gathered: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches: Tensor | None,
    aux_running_mean: Tensor | None,
    aux_running_var: Tensor | None,
    aux_num_batches: Tensor | None,
    momentum: float | None,
    aux_momentum: float | None,
) -> Arguments:
    main = Running(running_mean, running_var, num_batches, momentum)
    return gathered, main, Running(aux_running_mean, aux_running_var, aux_num_batches, aux_momentum)


def _check(gathered: Tensor, main: Running, aux: Running) -> None:
    """Refuse arguments of the op that do not fit."""
    fits = gathered.dim() == 3 and gathered.shape[1] == 2 and gathered.shape[2] % 2 == 1
    if not fits or gathered.shape[0] == 0 or gathered.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"gathered: expected torch.float32 or torch.float64 [processes, 2, 2C + 1], got "
            f"{gathered.dtype} {list(gathered.shape)}"
        )
    channels = (gathered.shape[2] - 1) // 2
    moved: list[tuple[str, Tensor | None]] = []
    for prefix, half in (("", main), ("aux_", aux)):
        names = [f"{prefix}{name}" for name in ("running_mean", "running_var", "num_batches")]
        for name, value in zip(names[:2], half[:2], strict=True):
            if value is None:
                continue
            if value.dtype not in FLOATING or value.shape != (channels,):
                raise ValueError(
                    f"{name}: expected floating [{channels}], got {value.dtype} {list(value.shape)}"
                )
            require_device(name, value, gathered)
        if half.num_batches is not None:
            require(names[2], half.num_batches, (), torch.int64, gathered)
        elif half.momentum is None:
            raise ValueError(f"{names[2]}: needed with {prefix}momentum=None")
        moved += zip(names, half[:3], strict=True)
    require_apart(moved, [("gathered", gathered)])


def _reference(gathered: Tensor, main: Running, aux: Running) -> tuple[Tensor, Tensor, Tensor]:
    channels = (gathered.shape[2] - 1) // 2
    # Wider where the device can: the means of two processes may be a rounding apart.
    wide = torch.promote_types(gathered.dtype, widest_float(gathered.device))
    means, m2, counts = gathered.to(wide).split_with_sizes([channels, channels, 1], dim=2)
    count = counts.sum(0)  # [2, 1]
    mean = (means * counts).sum(0) / count.clamp(min=1)
    m2 = (m2 + (means - mean).square() * counts).sum(0)  # [2, C]
    unbiased = m2 / (count - 1).clamp(min=1)
    for row, half in enumerate((main, aux)):
        _move(half, mean[row], unbiased[row], count[row, 0] > 0)
    found = (mean, m2 / count.clamp(min=1), count[:, 0])
    mean, variance, count = (value.to(gathered.dtype, copy=True) for value in found)
    return mean, variance, count


def _move(half: Running, mean: Tensor, unbiased: Tensor, seen: Tensor) -> None:
    """Move running statistics as the plain norm would by the rows of all; not by none."""
    rate: float | Tensor
    if half.num_batches is not None:
        half.num_batches.add_(seen)
    if half.momentum is not None:
        rate = half.momentum
    else:
        assert half.num_batches is not None
        rate = half.num_batches.clamp(min=1).to(mean.dtype).reciprocal()
    for running, value in ((half.mean, mean), (half.variance, unbiased)):
        if running is not None:
            moved = (1 - rate) * running.to(mean.dtype) + rate * value
            running.copy_(torch.where(seen, moved.to(running.dtype), running))


def _fake(gathered: Tensor, main: Running, aux: Running) -> tuple[Tensor, Tensor, Tensor]:
    mean = gathered.new_empty((2, (gathered.shape[2] - 1) // 2))
    return mean, torch.empty_like(mean), gathered.new_empty(2)


OP, REFERENCE_OP = define(SCHEMA, _check, _reference, _fake, _from_flat)


def merge_moments(gathered: Tensor, main: Running, aux: Running) -> tuple[Tensor, Tensor, Tensor]:
    """Merge the moments of all processes by Chan's formula, and move the running statistics.

    The sums run in the order of ranks, so that every process finds the same bits.

    Args:
        gathered: [W, 2, 2C + 1], `moments` of each process.
        main, aux: moved in place, the variance by the unbiased one; not where no process has rows.

    Returns:
        mean and biased variance [2, C], and the number of values a channel [2], in the dtype of
        `gathered`; zeros for a group without any.
    """
    first = (main.mean, main.variance, main.num_batches, aux.mean, aux.variance, aux.num_batches)
    found: tuple[Tensor, Tensor, Tensor] = call(
        OP, gathered, gathered, *first, main.momentum, aux.momentum
    )
    return found
