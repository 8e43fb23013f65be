"""Launch the moments of a dual batch norm: once for partial ones per chunk, once to merge them."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import launch, on_device_of
from .dual_batch_norm_plan import (
    UNSPECIALIZED,
    chunk_of,
    covers_input,
    dense,
    make_plan,
    wait_for_previous,
)
from .dual_batch_norm_statistics import merge_statistics, statistics


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _write_moments(
    partial,  # [3, chunks, channels], read where a group trains
    moments,  # [2, 2 * channels + 1] float32, out
    num_main,
    num_aux,
    channels,
    pixels,
    chunks_main,
    chunks_aux,
    training,
    aux_training,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SUMS_E: tl.constexpr,
    MERGE: tl.constexpr,
    STAGES: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    wait_for_previous(OVERLAPS)
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    wants_aux = tl.program_id(1) == 1
    rows = tl.where(wants_aux, num_aux, num_main)
    trains = tl.where(wants_aux, aux_training, training) != 0
    mean = tl.zeros([BLOCK_C], tl.float32)
    m2 = tl.zeros([BLOCK_C], tl.float32)
    count = tl.zeros([], tl.float32)
    if trains & (rows > 0):
        # By the group's first chunk: it has one.
        is_aux, images, inner, tiles_per_image, _, _ = chunk_of(
            tl.where(wants_aux, chunks_main, 0), num_main, num_aux, pixels, chunks_main,
            chunks_aux, CHANNELS_LAST, BLOCK_E,
        )  # fmt: skip
        mean, _, var = merge_statistics(
            partial, is_aux, images, inner, tiles_per_image, channels, chunks_main, chunks_aux,
            column, CHANNELS_LAST, BLOCK_E, BLOCK_C, MERGE,
        )  # fmt: skip
        count = (images * inner).to(tl.float32)
        m2 = var * count
    out = moments + tl.where(wants_aux, 2 * channels + 1, 0)
    tl.store(out + column, mean, mask=column < channels)
    tl.store(out + channels + column, m2, mask=column < channels)
    if tl.program_id(0) == 0:
        tl.store(out + 2 * channels, count)


def covers(x: Tensor, num_main: int, training: bool, aux_training: bool) -> bool:
    """Return whether `dual_batch_norm_moments` takes these."""
    return covers_input(x)


def dual_batch_norm_moments(x: Tensor, num_main: int, training: bool, aux_training: bool) -> Tensor:
    """Return mean, sum of squared deviations and number of values a channel of both groups.

    Args:
        x: `[N, C, ...]`, float32, bfloat16 or float16; copied first unless contiguous or
            channels_last.
        num_main: rows of the main group, `0 <= num_main <= N`.
        training, aux_training: of the halves.

    Returns:
        `[2, 2C + 1]` float32; zeros for a group that has no rows or does not train. Two launches,
        one where nothing trains.
    """
    x = dense(x)
    plan = make_plan(x, num_main)
    channels = x.shape[1]
    moments = torch.empty((2, 2 * channels + 1), dtype=torch.float32, device=x.device)
    numbers = (*plan.sizes, int(training), int(aux_training))
    if not ((training and num_main > 0) or (aux_training and num_main < x.shape[0])):
        return moments.zero_()
    partial = moments.new_empty((3, plan.grid[1], channels))
    settings = (numbers, plan.specialized, plan.constants, plan.num_warps)
    with on_device_of(x):
        launch(statistics, plan.grid, (x, None, None, partial), *settings)
        launch(_write_moments, (plan.grid[0], 2), (partial, moments), *settings, plan.overlaps)
    return moments
