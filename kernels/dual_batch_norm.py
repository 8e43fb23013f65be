"""Launch the dual batch norm: once for partial statistics, once to merge and normalise."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from entprop_fast.norm_half import Half

from .device import launch, on_device_of
from .dual_batch_norm_plan import (
    UNSPECIALIZED,
    chunk_of,
    covers_input,
    covers_parameters,
    dense,
    in_layout_of,
    load_channel,
    make_plan,
    store_group_row,
    tile_of,
    wait_for_previous,
)
from .dual_batch_norm_statistics import merge_statistics, statistics


@triton.jit
def _move_running(main, aux, is_aux, value, momentum, column, channels):
    inside = column < channels
    if is_aux:
        if aux is not None:
            old = tl.load(aux + column, mask=inside, other=0.0).to(tl.float32)
            new = (1.0 - momentum) * old + momentum * value
            tl.store(aux + column, new.to(aux.dtype.element_ty), mask=inside)
    else:
        if main is not None:
            old = tl.load(main + column, mask=inside, other=0.0).to(tl.float32)
            new = (1.0 - momentum) * old + momentum * value
            tl.store(main + column, new.to(main.dtype.element_ty), mask=inside)


@triton.jit
def _count_batch(main, aux, is_aux):
    if is_aux:
        if aux is not None:
            tl.store(aux, tl.load(aux) + 1)
    else:
        if main is not None:
            tl.store(main, tl.load(main) + 1)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _normalize(
    x,
    residual,  # like x, or None
    weight,
    bias,
    running_mean,
    running_var,
    aux_weight,
    aux_bias,
    aux_running_mean,
    aux_running_var,
    num_batches,  # int64 [], or None
    aux_num_batches,
    partial,  # [3, chunks, channels], None where no group trains
    y,  # like x, out
    mean_out,  # [2, channels] float32, out
    rstd_out,  # [2, channels] float32, out
    num_main,
    num_aux,
    channels,
    pixels,
    chunks_main,
    chunks_aux,
    training,
    aux_training,
    momentum,
    aux_momentum,
    eps,
    aux_eps,
    RELU: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SUMS_E: tl.constexpr,
    MERGE: tl.constexpr,
    STAGES: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    pid = tl.program_id(1)
    is_aux, images, inner, tiles_per_image, first, last = chunk_of(
        pid, num_main, num_aux, pixels, chunks_main, chunks_aux, CHANNELS_LAST, BLOCK_E
    )
    trains = tl.where(is_aux, aux_training, training) != 0
    mean = tl.zeros([BLOCK_C], tl.float32)
    rounded_off = tl.zeros([BLOCK_C], tl.float32)
    var = tl.zeros([BLOCK_C], tl.float32)
    if trains:
        if partial is not None:
            wait_for_previous(OVERLAPS)
            mean, rounded_off, var = merge_statistics(
                partial, is_aux, images, inner, tiles_per_image, channels, chunks_main, chunks_aux,
                column, CHANNELS_LAST, BLOCK_E, BLOCK_C, MERGE,
            )  # fmt: skip
    else:
        mean = load_channel(running_mean, aux_running_mean, is_aux, column, channels, 0.0)
        var = load_channel(running_var, aux_running_var, is_aux, column, channels, 1.0)
    eps = tl.where(is_aux, tl.cast(aux_eps, tl.float32), tl.cast(eps, tl.float32))
    # The approximate rsqrt would be the largest error of the whole pass.
    rstd = tl.div_rn(1.0, tl.sqrt_rn(var + eps))
    if first == 0:
        store_group_row(mean_out, mean, is_aux, num_main, num_aux, column, channels)
        store_group_row(rstd_out, rstd, is_aux, num_main, num_aux, column, channels)
        if trains:
            aux_momentum = tl.cast(aux_momentum, tl.float32)
            rate = tl.where(is_aux, aux_momentum, tl.cast(momentum, tl.float32))
            count = (images * inner).to(tl.float32)
            unbiased = var * (count / (count - 1.0))
            _move_running(running_mean, aux_running_mean, is_aux, mean, rate, column, channels)
            _move_running(running_var, aux_running_var, is_aux, unbiased, rate, column, channels)
            if tl.program_id(0) == 0:
                _count_batch(num_batches, aux_num_batches, is_aux)

    scale = rstd * load_channel(weight, aux_weight, is_aux, column, channels, 1.0)
    # At mean 1e3 the rounding of the mean alone is 3e-5; here it costs nothing to put it back.
    shift = load_channel(bias, aux_bias, is_aux, column, channels, 0.0) - rounded_off * scale
    # Backwards: the end of the chunk is what the statistics pass left in L2.
    for i in tl.range(0, last - first, num_stages=STAGES):
        base, offset, mask = tile_of(
            last - 1 - i, is_aux, inner, tiles_per_image, num_main, channels, pixels, column,
            CHANNELS_LAST, BLOCK_E,
        )  # fmt: skip
        value = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32)
        value = (value - mean[None, :]) * scale[None, :] + shift[None, :]
        if residual is not None:
            value += tl.load(residual + base + offset, mask=mask, other=0.0).to(tl.float32)
        if RELU:
            value = tl.where(value < 0, 0.0, value)  # not tl.maximum: NaN must stay
        tl.store(y + base + offset, value.to(y.dtype.element_ty), mask=mask)


def covers(
    x: Tensor, residual: Tensor | None, main: Half, aux: Half, num_main: int, relu: bool,
    addend: Tensor | None = None,
) -> bool:  # fmt: skip
    """Return whether `dual_batch_norm` takes these inputs."""
    return covers_input(x, residual, addend) and covers_parameters(x, *main.tensors, *aux.tensors)


def dual_batch_norm(
    x: Tensor, residual: Tensor | None, main: Half, aux: Half, num_main: int, relu: bool,
    addend: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute `relu?(norm(x + addend?) + residual?)`, rows `[0, num_main)` by main, then aux.

    Args:
        x: `[N, C, ...]`, float32, bfloat16 or float16; copied first unless contiguous or
            channels_last.
        residual: like `x`; one in another layout is copied first.
        main, aux: `[C]` tensors, None for 1 and 0; running statistics are moved in place by the
            unbiased variance where the half trains, read where it does not; the number of batches
            is increased where it trains.
        addend: like `x`; one in another layout is copied first.
        num_main: rows of the main half, `0 <= num_main <= N`.

    Returns:
        y like `x`, strides included; mean and rstd `[2, C]` float32, row 0 main, row 1 auxiliary,
        zeros for an empty group; an empty mask: the backward recomputes it; and `x + addend`, empty
        without one. Two launches, one where nothing trains; one more for the sum where a group does
        not.
    """
    given, x = x, dense(x)
    as_given = x is given
    plan = make_plan(x, num_main)
    channels = x.shape[1]
    y = torch.empty_like(x)
    mean = torch.empty((2, channels), dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    mask = torch.empty(0, dtype=torch.uint8, device=x.device)
    if residual is not None:
        residual = in_layout_of(x, residual, plan)
    trains = (int(main.training), int(aux.training))
    partial = total = None
    with on_device_of(x):
        training = [main.training] * (num_main > 0) + [aux.training] * (num_main < x.shape[0])
        if addend is not None:
            addend = in_layout_of(x, addend, plan)
            if not all(training):
                x, addend = torch.add(x, addend), None
            total = x if addend is None else torch.empty_like(x)
        if any(training):
            partial = mean.new_empty((3, plan.grid[1], channels))
            summed = None if addend is None else total
            launch(
                statistics, plan.grid, (x, addend, summed, partial), (*plan.sizes, *trains),
                plan.specialized, plan.constants, plan.num_warps,
            )  # fmt: skip
        tensors = (
            x if total is None else total, residual, main.weight, main.bias, main.running_mean,
            main.running_var, aux.weight, aux.bias, aux.running_mean, aux.running_var,
            main.num_batches, aux.num_batches, partial, y, mean, rstd,
        )  # fmt: skip
        scalars = (main.momentum, aux.momentum, main.eps, aux.eps)
        numbers = (*plan.sizes, *trains, *map(float, scalars))
        constants = {"RELU": bool(relu), **plan.constants}
        launch(
            _normalize, plan.grid, tensors, numbers, plan.specialized, constants, plan.num_warps,
            overlaps=plan.overlaps and partial is not None,
        )  # fmt: skip
    total = x.new_empty(0) if total is None else total
    if not as_given:
        y = torch.empty_like(given).copy_(y)
        total = torch.empty_like(given).copy_(total) if total.numel() else total
    return y, mean, rstd, mask, total
