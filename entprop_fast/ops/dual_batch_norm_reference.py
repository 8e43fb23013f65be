"""Compute dual batch norm in plain PyTorch: oracle, fallback, and what autograd derives."""

import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.norm_half import Half
from entprop_fast.ops.layout import is_channels_last, same_layout

SMALL_PLANE = 256  # pixels; kSmallPlane of csrc/cpu/kernels.h


def accumulate_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of statistics: float64 for float64, float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def groups(x: Tensor, num_main: int) -> list[tuple[int, Tensor]]:
    """Return the groups that have rows, as (0 main | 1 auxiliary, rows): an empty batch is main."""
    if num_main == x.shape[0]:
        return [(0, x)]
    if num_main == 0:
        return [(1, x)]
    return [(0, x[:num_main]), (1, x[num_main:])]


def dual_batch_norm(
    x: Tensor, residual: Tensor | None, main: Half, aux: Half, num_main: int, relu: bool
) -> Tensor:
    """Apply `F.batch_norm` to each group, then residual and ReLU; differentiable to any order."""
    halves = (main, aux)
    parts = [_batch_norm(rows, halves[group]) for group, rows in groups(x, num_main)]
    y = parts[0] if len(parts) == 1 else torch.cat(parts)
    if residual is not None:
        y = y + residual
    return F.relu(y) if relu else y


def _batch_norm(x: Tensor, half: Half) -> Tensor:
    weight, bias, mean, var, training, momentum, eps, num_batches = half
    if training and num_batches is not None:
        num_batches.add_(1)
    if mean is not None:  # PyTorch takes no parameters narrower than the statistics
        weight, bias = (None if t is None else t.to(mean.dtype) for t in (weight, bias))
    return F.batch_norm(x, mean, var, weight, bias, training, momentum, eps)


def _statistics(x: Tensor, half: Half) -> tuple[Tensor, Tensor]:
    dtype = accumulate_dtype(x)
    if half.training:
        dims = [0, *range(2, x.dim())]
        var, mean = torch.var_mean(x.to(dtype), dims, correction=0)
    else:
        assert half.running_mean is not None and half.running_var is not None
        mean, var = half.running_mean.to(dtype), half.running_var.to(dtype)
    return mean, torch.rsqrt(var + half.eps)


def _mask_runs(x: Tensor) -> tuple[int, int]:
    """Count the runs of the ReLU mask, and the bits of each; also in csrc/cpu/norm.h."""
    rows, channels, pixels = x.shape[0], x.shape[1], x.shape[2:].numel()
    if is_channels_last(x) or pixels == 1:
        return rows * pixels, channels
    if pixels < SMALL_PLANE:
        return rows, channels * pixels
    return rows * channels, pixels


def mask_shape(x: Tensor, residual: Tensor | None, relu: bool) -> tuple[int, ...]:
    """Return the shape of the ReLU bit mask: [runs, bytes of a run], bit by element.

    Each run starts on a whole byte: C elements where the channels are innermost, otherwise a plane
    or, where planes are small, an image. Without a residual the backward recomputes the sign from
    `x`, which it reads anyway; on CUDA it always does: no mask, shape [0].
    """
    if not relu or residual is None or x.device.type != "cpu":
        return (0,)
    runs, bits = _mask_runs(x)
    return (runs, (bits + 7) // 8)


def _in_runs(y: Tensor) -> Tensor:
    """Return `y` as [runs, elements of a run], in the order of the mask's bits."""
    innermost = is_channels_last(y) or y.shape[2:].numel() == 1
    return (y.movedim(1, -1) if innermost else y).reshape(_mask_runs(y))


def pack_mask(y: Tensor) -> Tensor:
    """Pack the bits of y > 0 or NaN, least significant first, as uint8 of `mask_shape`."""
    bits = _in_runs(~(y <= 0))
    runs, length = bits.shape
    bits = F.pad(bits, (0, -length % 8)).reshape(runs, (length + 7) // 8, 8)
    weights = 2 ** torch.arange(8, device=y.device)
    return (bits * weights).sum(-1).to(torch.uint8)


def unpack_mask(mask: Tensor, x: Tensor) -> Tensor:
    """Undo `pack_mask`: bool, shaped like `x`."""
    weights = 2 ** torch.arange(8, device=x.device, dtype=torch.uint8)
    bits = (mask.unsqueeze(-1) & weights).ne(0).flatten(1)[:, : _mask_runs(x)[1]]
    if is_channels_last(x) or x.shape[2:].numel() == 1:
        return bits.reshape(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)
    return bits.reshape(x.shape)


def forward(
    x: Tensor,
    residual: Tensor | None,
    main: Half,
    aux: Half,
    num_main: int,
    relu: bool,
    addend: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the op `dual_batch_norm`: y, mean and rstd [2, C], mask, and x + addend if given."""
    halves = (main, aux)
    total = x.new_empty(0) if addend is None else same_layout(x + addend, x)
    x = x if addend is None else total
    mean = x.new_zeros((2, x.shape[1]), dtype=accumulate_dtype(x))
    rstd = torch.zeros_like(mean)
    for group, rows in groups(x, num_main):
        mean[group], rstd[group] = _statistics(rows, halves[group])
    y = same_layout(dual_batch_norm(x, residual, main, aux, num_main, relu), x)
    shape = mask_shape(x, residual, relu)
    mask = pack_mask(y) if len(shape) == 2 else x.new_empty(shape, dtype=torch.uint8)
    return y, mean, rstd, mask, total


def positive(
    x: Tensor,
    residual: Tensor | None,
    halves: tuple[Half, Half],
    mean: Tensor,
    rstd: Tensor,
    mask: Tensor,
    num_main: int,
) -> Tensor:
    """Tell where the forward's y > 0 or NaN (as ReLU's own backward): by mask, or recomputed."""
    if mask.numel():
        return unpack_mask(mask, x)
    parts = []
    for group, rows in groups(x, num_main):
        weight, bias = halves[group].weight, halves[group].bias
        scale = _per_channel(rstd[group] if weight is None else rstd[group] * weight, x)
        y = (rows - _per_channel(mean[group], x)) * scale
        parts.append(y if bias is None else y + _per_channel(bias.to(mean.dtype), x))
    y = torch.cat(parts)
    return ~((y if residual is None else y + residual) <= 0)


def normalise(
    x: Tensor, halves: tuple[Half, Half], mean: Tensor, rstd: Tensor, num_main: int
) -> Tensor:
    """Compute the norm alone, differentiable in `x` and both halves' weight and bias.

    A training half's statistics are recomputed, so that the graph runs through them; a frozen
    half's are `mean` and `rstd`. No running statistic moves.
    """
    parts = []
    for group, rows in groups(x, num_main):
        half = halves[group]
        weight, bias = half.weight, half.bias
        if half.training:
            y = F.batch_norm(rows, None, None, weight, bias, training=True, eps=half.eps)
        else:
            y = (rows - _per_channel(mean[group], x)) * _per_channel(rstd[group], x)
            y = y if weight is None else y * _per_channel(weight, x)
            y = (y if bias is None else y + _per_channel(bias, x)).to(x.dtype)
        parts.append(y)
    return torch.cat(parts)


def _per_channel(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (x.dim() - 2))


def backward(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    main: Half,
    aux: Half,
    mean: Tensor,
    rstd: Tensor,
    mask: Tensor,
    num_main: int,
    relu: bool,
    wanted: list[bool],
    again: Tensor | None = None,
    dtotal: Tensor | None = None,
    *,
    means: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the op `dual_batch_norm_backward`, x' = (x - mean) rstd and n values a channel.

    dbias = sum g, dweight = sum g x', dx = weight rstd (g - (dbias + x' dweight)/n); with fixed
    statistics dx = weight rstd g. `again` is added to `grad` and `dtotal` to dx, each sum rounded
    as autograd's would be. `means` are dbias/n and dweight/n of the rows of all processes, for dx
    alone.
    """
    dtype = mean.dtype
    halves = (main, aux)
    g = (grad if again is None else grad + again).to(dtype)
    if relu:
        g = g * positive(x, residual, halves, mean, rstd, mask, num_main)
    dims = [0, *range(2, x.dim())]
    dx, dweight, dbias = [], torch.zeros_like(mean), torch.zeros_like(mean)
    for (group, rows), (_, g_rows) in zip(groups(x, num_main), groups(g, num_main), strict=True):
        normalised = (rows.to(dtype) - _per_channel(mean[group], x)) * _per_channel(rstd[group], x)
        dbias[group] = g_rows.sum(dims)
        dweight[group] = (g_rows * normalised).sum(dims)
        if halves[group].training:
            count = rows.numel() // max(rows.shape[1], 1)
            offset, slope = dbias[group] / count, dweight[group] / count
            if means is not None:
                offset, slope = means[0, group], means[1, group]
            g_rows = g_rows - (_per_channel(offset, x) + normalised * _per_channel(slope, x))
        scale = halves[group].weight
        dx.append(g_rows * _per_channel(rstd[group] if scale is None else rstd[group] * scale, x))
    dx_all = torch.cat(dx).to(x.dtype)
    dx_all = dx_all if dtotal is None else dx_all + dtotal
    return (
        same_layout(dx_all, x) if wanted[0] else x.new_empty(0),
        torch.empty_like(x).copy_(g) if wanted[1] else x.new_empty(0),
        dweight if wanted[2] else mean.new_empty(0),
        dbias if wanted[3] else mean.new_empty(0),
    )
