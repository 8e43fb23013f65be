"""Compute the moments of both groups, which several processes merge into those of all rows."""

import torch
from torch import Tensor

from entprop_fast.ops import dual_batch_norm_reference as reference
from entprop_fast.ops.dual_batch_norm_checks import check_images
from entprop_fast.ops.library import call, define

SCHEMA = (
    "dual_batch_norm_moments(Tensor x, int num_main, bool training, bool aux_training) "
    "-> Tensor moments"
)


def _check(x: Tensor, num_main: int, training: bool, aux_training: bool) -> None:
    """Refuse arguments of the op that do not fit."""
    check_images(x, None, num_main)


def _reference(x: Tensor, num_main: int, training: bool, aux_training: bool) -> Tensor:
    channels = x.shape[1]
    found = x.new_zeros((2, 2 * channels + 1), dtype=reference.accumulate_dtype(x))
    dims = [0, *range(2, x.dim())]
    for group, rows in reference.groups(x, num_main):
        count = rows.shape[0] * rows.shape[2:].numel()
        if count and (training, aux_training)[group]:
            variance, mean = torch.var_mean(rows.to(found.dtype), dims, correction=0)
            found[group, :channels] = mean
            found[group, channels:-1] = variance * count
            found[group, -1] = count
    return found


def _fake(x: Tensor, num_main: int, training: bool, aux_training: bool) -> Tensor:
    return x.new_empty((2, 2 * x.shape[1] + 1), dtype=reference.accumulate_dtype(x))


OP, REFERENCE_OP = define(SCHEMA, _check, _reference, _fake)


def moments(x: Tensor, num_main: int, training: bool, aux_training: bool) -> Tensor:
    """Return mean, sum of squared deviations and number of values a channel, of both groups.

    One tensor, so that one collective takes it.

    Args:
        x: [N, C, ...], floating.
        num_main: rows of the main group; the rest is auxiliary.
        training, aux_training: of the halves. A group without rows, or not in training, is zeros.

    Returns:
        [2, 2C + 1], row 0 main, row 1 auxiliary: C means, C sums, the number. float64 for float64,
        float32 for everything narrower.
    """
    found: Tensor = call(OP, x, x, num_main, training, aux_training)
    return found
