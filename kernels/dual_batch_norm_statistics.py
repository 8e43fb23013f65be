"""Compute batch statistics of the dual batch norm: partial ones per chunk, then merged."""

import triton
import triton.language as tl

from .dual_batch_norm_plan import (
    UNSPECIALIZED,
    chunk_of,
    elements_before,
    first_tile,
    let_next_begin,
    tile_of,
    within_threads,
)


@triton.jit
def _load_total(x, addend, total, base, offset, mask):
    """Return a tile of `x`, or of `x + addend` rounded to their type, which it writes."""
    value = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32)
    if addend is not None:
        value += tl.load(addend + base + offset, mask=mask, other=0.0).to(tl.float32)
        rounded = value.to(total.dtype.element_ty)
        tl.store(total + base + offset, rounded, mask=mask)
        value = rounded.to(tl.float32)
    return value


@triton.jit(do_not_specialize=UNSPECIALIZED)
def statistics(
    x,
    addend,  # like x, or None
    total_out,  # like x, out: x + addend, None without an addend
    partial,  # [3, chunks, channels] float32, out: shift, mean - shift, sum of squared deviations
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
    """Write partial statistics of every chunk, in one read of `x`; none of a frozen group.

    With an addend both groups train, or have no rows.
    """
    let_next_begin(OVERLAPS)
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    pid = tl.program_id(1)
    is_aux, _, inner, tiles_per_image, first, last = chunk_of(
        pid, num_main, num_aux, pixels, chunks_main, chunks_aux, CHANNELS_LAST, BLOCK_E
    )
    if tl.where(is_aux, aux_training, training) == 0:
        return

    # Squares are summed around the first tile's mean: E[x^2] - E[x]^2 would cancel.
    base, offset, mask = tile_of(
        first, is_aux, inner, tiles_per_image, num_main, channels, pixels, column,
        CHANNELS_LAST, BLOCK_E,
    )  # fmt: skip
    value = _load_total(x, addend, total_out, base, offset, mask)
    begin = elements_before(first, inner, tiles_per_image, CHANNELS_LAST, BLOCK_E)
    second = elements_before(first + 1, inner, tiles_per_image, CHANNELS_LAST, BLOCK_E)
    shift = tl.sum(value, axis=0) / (second - begin).to(tl.float32)

    deviation = tl.where(mask, value - shift[None, :], 0.0)
    total = within_threads(deviation, BLOCK_E, BLOCK_C, SUMS_E)
    squares = within_threads(deviation * deviation, BLOCK_E, BLOCK_C, SUMS_E)
    for tile in tl.range(first + 1, last, num_stages=STAGES):
        base, offset, mask = tile_of(
            tile, is_aux, inner, tiles_per_image, num_main, channels, pixels, column,
            CHANNELS_LAST, BLOCK_E,
        )  # fmt: skip
        value = _load_total(x, addend, total_out, base, offset, mask)
        deviation = tl.where(mask, value - shift[None, :], 0.0)
        total += within_threads(deviation, BLOCK_E, BLOCK_C, SUMS_E)
        squares += within_threads(deviation * deviation, BLOCK_E, BLOCK_C, SUMS_E)
    end = elements_before(last, inner, tiles_per_image, CHANNELS_LAST, BLOCK_E)
    count = (end - begin).to(tl.float32)
    delta = tl.div_rn(tl.sum(total, axis=0), count)
    m2 = tl.sum(squares, axis=0) - count * delta * delta
    m2 = tl.where(m2 < 0, 0.0, m2)  # not tl.maximum: NaN must stay

    out = partial + pid.to(tl.int64) * channels + column
    row = (chunks_main + chunks_aux).to(tl.int64) * channels
    tl.store(out, shift, mask=column < channels)
    tl.store(out + row, delta, mask=column < channels)
    tl.store(out + 2 * row, m2, mask=column < channels)


@triton.jit
def _weights_of(
    chunk, own, tiles, inner, tiles_per_image, CHANNELS_LAST: tl.constexpr,
    BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Count the elements of a channel in each of a group's chunks; none past the last."""
    begin = elements_before(
        first_tile(chunk, own, tiles), inner, tiles_per_image, CHANNELS_LAST, BLOCK_E
    )  # fmt: skip
    end = first_tile(chunk + 1, own, tiles)
    weight = elements_before(end, inner, tiles_per_image, CHANNELS_LAST, BLOCK_E) - begin
    return tl.where(chunk < own, weight, 0).to(tl.float32)


@triton.jit
def merge_statistics(
    partial,
    is_aux,
    images,
    inner,
    tiles_per_image,
    channels,
    chunks_main,
    chunks_aux,
    column,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
    MERGE: tl.constexpr,
):
    """Return a group's mean, what float32 rounds off it, and its biased variance, each [BLOCK_C].

    Chan, Golub and LeVeque's formula, MERGE chunks at a time, each of which is read once; means are
    compared after the first chunk's shift is taken off, where they are small numbers.
    """
    own = tl.where(is_aux, chunks_aux, chunks_main)
    start = partial + tl.where(is_aux, chunks_main, 0) * channels + column
    row = (chunks_main + chunks_aux) * channels
    tiles = images * tiles_per_image
    origin = tl.load(start, mask=column < channels, other=0.0)

    count = tl.zeros([1], tl.float32)
    delta = tl.zeros([BLOCK_C], tl.float32)
    m2 = tl.zeros([BLOCK_C], tl.float32)
    for i in range(0, own, MERGE):
        chunk = i + tl.arange(0, MERGE)
        inside = (chunk < own)[:, None] & (column < channels)[None, :]
        weight = _weights_of(
            chunk, own, tiles, inner, tiles_per_image, CHANNELS_LAST, BLOCK_E
        )  # fmt: skip
        address = start[None, :] + chunk[:, None] * channels
        moved = tl.load(address, mask=inside, other=0.0)
        apart = tl.load(address + row, mask=inside, other=0.0)
        within = tl.load(address + 2 * row, mask=inside, other=0.0)
        moved = tl.where(inside, moved - origin[None, :] + apart, 0.0)
        here = tl.sum(weight, axis=0)
        mean = tl.div_rn(tl.sum(moved * weight[:, None], axis=0), here)
        apart = moved - mean[None, :]
        spread = tl.sum(within + apart * apart * weight[:, None], axis=0)
        step = mean - delta
        m2 += spread + step * step * (count * here / (count + here))
        delta += step * tl.div_rn(here, count + here)
        count += here
    mean = origin + delta
    return mean, delta - (mean - origin), tl.div_rn(m2, count)
