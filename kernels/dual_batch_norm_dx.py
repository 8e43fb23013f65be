"""Launch the backward's second pass alone: dx by sums over the rows of all processes."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from entprop_fast.norm_half import Half

from .device import launch, on_device_of
from .dual_batch_norm_backward import masked_gradient
from .dual_batch_norm_plan import (
    UNSPECIALIZED,
    chunk_of,
    covers_input,
    covers_parameters,
    dense,
    in_layout_of,
    load_channel,
    make_plan,
    tile_of,
)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _apply_sums(
    grad,
    x,
    residual,  # like x, or None
    weight,
    bias,
    aux_weight,
    aux_bias,
    mean_in,  # [2, channels] float32
    rstd_in,  # [2, channels] float32
    sums,  # [2, 2, channels] float32: of g, of g * normalised x; main's, auxiliary ones
    count,  # [2] float32
    dx,  # like x, out
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
    is_aux, _, inner, tiles_per_image, first, last = chunk_of(
        tl.program_id(1), num_main, num_aux, pixels, chunks_main, chunks_aux, CHANNELS_LAST,
        BLOCK_E,
    )  # fmt: skip
    mean = load_channel(mean_in, mean_in + channels, is_aux, column, channels, 0.0)
    rstd = load_channel(rstd_in, rstd_in + channels, is_aux, column, channels, 0.0)
    scale = rstd * load_channel(weight, aux_weight, is_aux, column, channels, 1.0)
    shift = load_channel(bias, aux_bias, is_aux, column, channels, 0.0)
    mean_g = tl.zeros([BLOCK_C], tl.float32)
    slope = tl.zeros([BLOCK_C], tl.float32)
    if tl.where(is_aux, aux_training, training) != 0:
        values = tl.load(count + tl.where(is_aux, 1, 0))
        values = tl.where(values < 1, 1.0, values)
        second = sums + 2 * channels
        total = load_channel(sums, sums + channels, is_aux, column, channels, 0.0)
        product = load_channel(second, second + channels, is_aux, column, channels, 0.0)
        # Correctly rounded: the approximate division's error would be the largest of dx.
        mean_g = tl.div_rn(total, values + tl.zeros_like(total))
        slope = tl.div_rn(product * rstd, values + tl.zeros_like(total))
    # Backwards: the end of the chunk is what the sums' pass left in L2.
    for i in tl.range(0, last - first, num_stages=STAGES):
        base, offset, mask = tile_of(
            last - 1 - i, is_aux, inner, tiles_per_image, num_main, channels, pixels, column,
            CHANNELS_LAST, BLOCK_E,
        )  # fmt: skip
        centered = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32) - mean[None, :]
        g = masked_gradient(
            grad, None, centered, residual, scale, shift, base, offset, mask, RELU
        )  # fmt: skip
        g = (g - mean_g[None, :] - centered * slope[None, :]) * scale[None, :]
        tl.store(dx + base + offset, g.to(dx.dtype.element_ty), mask=mask)


def covers(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    main: Half,
    aux: Half,
    mean: Tensor,
    rstd: Tensor,
    mask: Tensor,
    sums: Tensor,
    count: Tensor,
    *_: object,
) -> bool:
    """Return whether `dual_batch_norm_dx` takes these; the rest it takes always."""
    per_channel = (main.weight, main.bias, aux.weight, aux.bias, mean, rstd, sums, count)
    return covers_input(x, grad, residual) and covers_parameters(x, *per_channel)


def dual_batch_norm_dx(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    main: Half,
    aux: Half,
    mean: Tensor,
    rstd: Tensor,
    mask: Tensor,
    sums: Tensor,
    count: Tensor,
    num_main: int,
    relu: bool,
) -> Tensor:
    """Compute the gradient of the input, given sums over the rows of all processes.

    Args:
        grad: `[N, C, ...]` like `x`; one in another layout is copied first.
        x, residual, main, aux, mean, rstd, mask, num_main, relu: as for
            `dual_batch_norm_backward`.
        sums: `[2, 2, C]` float32, of g and of g times normalised x.
        count: `[2]` float32, values a channel.

    Returns:
        dx like `x`. One launch.
    """
    reads_residual = relu and residual is not None
    given, x = x, dense(x)
    plan = make_plan(x, num_main, tensors=3 if reads_residual else 2)
    grad = in_layout_of(x, grad, plan)
    residual = in_layout_of(x, residual, plan) if residual is not None and relu else None
    dx = torch.empty_like(x)
    affine = (main.weight, main.bias, aux.weight, aux.bias)
    with on_device_of(x):
        launch(
            _apply_sums, plan.grid, (grad, x, residual, *affine, mean, rstd, sums, count, dx),
            (*plan.sizes, int(main.training), int(aux.training)), plan.specialized,
            {"RELU": bool(relu), **plan.constants}, plan.num_warps,
        )  # fmt: skip
    return dx if x is given else torch.empty_like(given).copy_(dx)
