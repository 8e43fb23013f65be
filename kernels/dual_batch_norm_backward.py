"""Launch the dual batch norm's backward: once for the sums, once for dx; only what is wanted."""

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
    let_next_begin,
    load_channel,
    make_plan,
    store_group_row,
    tile_of,
    wait_for_previous,
    within_threads,
)


@triton.jit
def masked_gradient(
    grad, again, centered, residual, scale, shift, base, offset, mask, RELU: tl.constexpr
):  # fmt: skip
    """Return a tile of the gradient before the ReLU, whose sign is recomputed."""
    value = tl.load(grad + base + offset, mask=mask, other=0.0).to(tl.float32)
    if again is not None:
        value += tl.load(again + base + offset, mask=mask, other=0.0).to(tl.float32)
        value = value.to(grad.dtype.element_ty).to(tl.float32)  # as a sum of its own rounds
    if RELU:
        output = centered * scale[None, :] + shift[None, :]
        if residual is not None:
            output += tl.load(residual + base + offset, mask=mask, other=0.0).to(tl.float32)
        value = tl.where(output <= 0, 0.0, value)  # a NaN output passes the gradient, as torch's
    return value


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _reduce(
    grad,
    again,  # like x, added to grad, or None
    x,
    residual,
    weight,
    bias,
    aux_weight,
    aux_bias,
    mean_in,  # [2, channels] float32
    rstd_in,  # [2, channels] float32
    dresidual,  # like x, out, or None
    partial,  # [2, chunks, channels] float32, out: sum of g, sum of g * normalised x
    num_main,
    num_aux,
    channels,
    pixels,
    chunks_main,
    chunks_aux,
    RELU: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SUMS_E: tl.constexpr,
    MERGE: tl.constexpr,
    STAGES: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    let_next_begin(OVERLAPS)
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    pid = tl.program_id(1)
    is_aux, _, inner, tiles_per_image, first, last = chunk_of(
        pid, num_main, num_aux, pixels, chunks_main, chunks_aux, CHANNELS_LAST, BLOCK_E
    )
    mean = load_channel(mean_in, mean_in + channels, is_aux, column, channels, 0.0)
    rstd = load_channel(rstd_in, rstd_in + channels, is_aux, column, channels, 0.0)
    scale = rstd * load_channel(weight, aux_weight, is_aux, column, channels, 1.0)
    shift = load_channel(bias, aux_bias, is_aux, column, channels, 0.0)

    total = tl.zeros([SUMS_E, BLOCK_C], tl.float32)
    product = tl.zeros([SUMS_E, BLOCK_C], tl.float32)
    for tile in tl.range(first, last, num_stages=STAGES):
        base, offset, mask = tile_of(
            tile, is_aux, inner, tiles_per_image, num_main, channels, pixels, column,
            CHANNELS_LAST, BLOCK_E,
        )  # fmt: skip
        centered = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32) - mean[None, :]
        g = masked_gradient(
            grad, again, centered, residual, scale, shift, base, offset, mask, RELU
        )  # fmt: skip
        if dresidual is not None:
            tl.store(dresidual + base + offset, g.to(dresidual.dtype.element_ty), mask=mask)
        total += within_threads(g, BLOCK_E, BLOCK_C, SUMS_E)
        g = tl.where(mask, g * centered, 0.0)
        product += within_threads(g, BLOCK_E, BLOCK_C, SUMS_E)

    out = partial + pid.to(tl.int64) * channels + column
    tl.store(out, tl.sum(total, axis=0), mask=column < channels)
    chunks = (chunks_main + chunks_aux).to(tl.int64)
    tl.store(out + chunks * channels, tl.sum(product, axis=0) * rstd, mask=column < channels)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _apply(
    grad,
    again,  # like x, added to grad, or None
    dtotal,  # like x, added to dx, or None
    x,
    residual,
    weight,
    bias,
    aux_weight,
    aux_bias,
    mean_in,  # [2, channels] float32
    rstd_in,  # [2, channels] float32
    partial,  # [2, chunks, channels] float32, or None where nobody needs the sums
    dx,  # like x, out, or None
    dresidual,  # like x, out, or None
    dweight,  # [2, channels] float32, out, or None
    dbias,  # [2, channels] float32, out, or None
    num_main,
    num_aux,
    channels,
    pixels,
    chunks_main,
    chunks_aux,
    training,
    aux_training,
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
    mean = load_channel(mean_in, mean_in + channels, is_aux, column, channels, 0.0)
    rstd = load_channel(rstd_in, rstd_in + channels, is_aux, column, channels, 0.0)
    scale = rstd * load_channel(weight, aux_weight, is_aux, column, channels, 1.0)
    shift = load_channel(bias, aux_bias, is_aux, column, channels, 0.0)

    total = tl.zeros([BLOCK_C], tl.float32)
    product = tl.zeros([BLOCK_C], tl.float32)
    if partial is not None:
        wait_for_previous(OVERLAPS)
        own = tl.where(is_aux, chunks_aux, chunks_main)
        start = partial + tl.where(is_aux, chunks_main, 0) * channels + column
        second = (chunks_main + chunks_aux) * channels
        for i in range(0, own, MERGE):
            chunk = i + tl.arange(0, MERGE)
            inside = (chunk < own)[:, None] & (column < channels)[None, :]
            address = start[None, :] + chunk[:, None] * channels
            total += tl.sum(tl.load(address, mask=inside, other=0.0), axis=0)
            product += tl.sum(tl.load(address + second, mask=inside, other=0.0), axis=0)
        if first == 0:
            if dweight is not None:
                store_group_row(dweight, product, is_aux, num_main, num_aux, column, channels)
            if dbias is not None:
                store_group_row(dbias, total, is_aux, num_main, num_aux, column, channels)
    count = (images * inner).to(tl.float32)
    # Correctly rounded: the approximate division's error would be the largest of dx.
    mean_g = tl.div_rn(total, count)
    slope = tl.div_rn(product * rstd, count)
    trains = tl.where(is_aux, aux_training, training) != 0

    if (dx is not None) or (dresidual is not None):
        # Backwards: the end of the chunk is what the first launch left in L2.
        for i in tl.range(0, last - first, num_stages=STAGES):
            base, offset, mask = tile_of(
                last - 1 - i, is_aux, inner, tiles_per_image, num_main, channels, pixels, column,
                CHANNELS_LAST, BLOCK_E,
            )  # fmt: skip
            centered = tl.zeros([BLOCK_E, BLOCK_C], tl.float32)
            if RELU or (partial is not None):
                value = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32)
                centered = value - mean[None, :]
            g = masked_gradient(
                grad, again, centered, residual, scale, shift, base, offset, mask, RELU
            )  # fmt: skip
            if dresidual is not None:
                tl.store(dresidual + base + offset, g.to(dresidual.dtype.element_ty), mask=mask)
            if dx is not None:
                if partial is not None:
                    if trains:
                        g = g - mean_g[None, :] - centered * slope[None, :]
                result = g * scale[None, :]
                if dtotal is not None:
                    # Rounded by itself, as for a sum of its own: behind a select the product does
                    # not become part of a fused multiply-add.
                    result = tl.where(mask, result, 0.0).to(dx.dtype.element_ty).to(tl.float32)
                    result += tl.load(dtotal + base + offset, mask=mask, other=0.0).to(tl.float32)
                tl.store(dx + base + offset, result.to(dx.dtype.element_ty), mask=mask)


def covers(
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
) -> bool:
    """Return whether `dual_batch_norm_backward` takes these."""
    per_channel = (main.weight, main.bias, aux.weight, aux.bias, mean, rstd)
    images = covers_input(x, grad, residual, again, dtotal)
    return images and covers_parameters(x, *per_channel)


def dual_batch_norm_backward(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of `dual_batch_norm`; a pass or launch only if something needs it.

    Args:
        grad: `[N, C, ...]` like `x`; one in another layout is copied first.
        x, residual, main, aux, num_main, relu: as given to the forward; of the halves the affine
            parameters and `training` are read, without `relu` no residual.
        mean, rstd: `[2, C]` float32, the forward's.
        mask: the forward's, empty: the sign of the output is recomputed.
        wanted: dx, dresidual, dweight, dbias.
        again, dtotal: added to `grad` and to dx, each sum rounded to the dtype, like `grad`.

    Returns:
        dx and dresidual like `x`, dweight and dbias `[2, C]` float32; `[0]` where not wanted. Two
        launches; one for an elementwise result (frozen statistics, or dresidual alone).
    """
    reads_residual = relu and residual is not None
    given, x = x, dense(x)
    plan = make_plan(x, num_main, tensors=2 + reads_residual + (again is not None))
    grad = in_layout_of(x, grad, plan)
    again = None if again is None else in_layout_of(x, again, plan)
    dtotal = in_layout_of(x, dtotal, plan) if dtotal is not None and wanted[0] else None
    residual = in_layout_of(x, residual, plan) if reads_residual else None
    images = [torch.empty_like(x) if want else x.new_empty(0) for want in wanted[:2]]
    sums = [torch.empty_like(mean) if want else mean.new_empty(0) for want in wanted[2:]]
    dx, dresidual, dweight, dbias = (
        out if want else None for out, want in zip([*images, *sums], wanted, strict=True)
    )
    affine = (main.weight, main.bias, aux.weight, aux.bias, mean, rstd)
    trains = (main.training and num_main > 0) or (aux.training and num_main < x.shape[0])
    partial = None
    with on_device_of(x):
        if wanted[2] or wanted[3] or (wanted[0] and trains):
            partial = mean.new_empty((2, plan.grid[1], x.shape[1]))
            launch(
                _reduce, plan.grid, (grad, again, x, residual, *affine, dresidual, partial),
                plan.sizes, plan.specialized, {"RELU": bool(relu), **plan.constants},
                plan.num_warps,
            )  # fmt: skip
            if dresidual is not None:
                # It is the masked gradient: the second launch reads it alone, beside x.
                grad, residual, relu, dresidual, again = dresidual, None, False, None, None
        if any(out is not None for out in (dx, dresidual, dweight, dbias)):
            launch(
                _apply, plan.grid,
                (grad, again, dtotal, x, residual, *affine, partial, dx, dresidual, dweight, dbias),
                (*plan.sizes, int(main.training), int(aux.training)), plan.specialized,
                {"RELU": bool(relu), **plan.constants}, plan.num_warps,
                overlaps=plan.overlaps and partial is not None,
            )  # fmt: skip
    if x is not given:
        images = [torch.empty_like(given).copy_(t) if t.numel() else t for t in images]
    return images[0], images[1], sums[0], sums[1]
