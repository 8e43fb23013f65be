"""Compute the moments of both groups that several processes merge into those of the whole batch."""

import torch
from torch import Tensor

from entprop_fast.ops import dual_batch_norm_reference as reference


def moments(x: Tensor, num_main: int, training: bool, aux_training: bool) -> Tensor:
    """Return [2, 2C + 1]: mean and sum of squared deviations a channel, then values a channel.

    One tensor, so that one collective takes it. A group without rows, or not in training, is zeros.
    """
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


def merge_moments(gathered: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Merge the moments of all processes, [W, 2, 2C + 1], by Chan's formula.

    The order is that of the ranks, so that every process finds the same bits.

    Returns:
        mean and biased variance [2, C], and the number of values a channel [2]; of a group without
        any, all are zeros.
    """
    channels = (gathered.shape[-1] - 1) // 2
    # Wider where the device can: the means of two processes may be a rounding apart.
    wide = gathered.dtype if gathered.device.type == "mps" else torch.float64
    means, m2, counts = gathered.to(wide).split_with_sizes([channels, channels, 1], dim=-1)
    count = counts.sum(0)
    per_value = count.clamp(min=1).reciprocal()
    mean = (means * counts).sum(0) * per_value
    variance = (m2 + (means - mean).square() * counts).sum(0) * per_value
    return mean.to(gathered.dtype), variance.to(gathered.dtype), count.squeeze(-1)
