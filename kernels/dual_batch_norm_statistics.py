"""Batch statistics of the dual batch norm: partial ones per chunk, and their merging."""

import triton
import triton.language as tl

from .dual_batch_norm_plan import UNSPECIALIZED, chunk_of, elements_before, tile_of


@triton.jit(do_not_specialize=UNSPECIALIZED)
def statistics(
    x,
    partial,  # [3, chunks, channels] float32, out: shift, mean - shift, sum of squared deviations
    num_main,
    num_aux,
    channels,
    pixels,
    chunks_main,
    chunks_aux,
    tiles_per_chunk,
    training,
    aux_training,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
    MERGE: tl.constexpr,
):
    """Partial statistics of every chunk, in one read of `x`; nothing for a group that is frozen."""
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    pid = tl.program_id(1)
    is_aux, _, inner, tiles_per_image, first, last = chunk_of(
        pid, num_main, num_aux, pixels, chunks_main, tiles_per_chunk, CHANNELS_LAST, BLOCK_E
    )
    if tl.where(is_aux, aux_training, training) == 0:
        return

    # Squares are summed around the first tile's mean: E[x^2] - E[x]^2 would cancel.
    base, offset, mask = tile_of(
        first, is_aux, inner, tiles_per_image, num_main, channels, pixels, column,
        CHANNELS_LAST, BLOCK_E,
    )  # fmt: skip
    value = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32)
    begin = elements_before(first, inner, tiles_per_image, BLOCK_E)
    tile_count = elements_before(first + 1, inner, tiles_per_image, BLOCK_E) - begin
    shift = tl.sum(value, axis=0) / tile_count.to(tl.float32)

    total = tl.zeros([BLOCK_E, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_E, BLOCK_C], tl.float32)
    for tile in range(first, last):
        base, offset, mask = tile_of(
            tile, is_aux, inner, tiles_per_image, num_main, channels, pixels, column,
            CHANNELS_LAST, BLOCK_E,
        )  # fmt: skip
        value = tl.load(x + base + offset, mask=mask, other=0.0).to(tl.float32)
        deviation = tl.where(mask, value - shift[None, :], 0.0)
        total += deviation
        squares += deviation * deviation
    count = (elements_before(last, inner, tiles_per_image, BLOCK_E) - begin).to(tl.float32)
    delta = tl.sum(total, axis=0) / count
    m2 = tl.sum(squares, axis=0) - count * delta * delta
    m2 = tl.where(m2 < 0, 0.0, m2)  # not tl.maximum: NaN must stay

    out = partial + pid.to(tl.int64) * channels + column
    row = (chunks_main + chunks_aux).to(tl.int64) * channels
    tl.store(out, shift, mask=column < channels)
    tl.store(out + row, delta, mask=column < channels)
    tl.store(out + 2 * row, m2, mask=column < channels)


@triton.jit
def _weights_of(
    chunk, tiles_per_chunk, tiles, inner, tiles_per_image, BLOCK_E: tl.constexpr
):  # fmt: skip
    """How many elements of a channel each of a group's chunks holds."""
    begin = elements_before(chunk * tiles_per_chunk, inner, tiles_per_image, BLOCK_E)
    end = tl.minimum((chunk + 1) * tiles_per_chunk, tiles)
    return (elements_before(end, inner, tiles_per_image, BLOCK_E) - begin).to(tl.float32)


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
    tiles_per_chunk,
    column,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
    MERGE: tl.constexpr,
):
    """A group's mean, what float32 rounds off it, and its biased variance, each [BLOCK_C].

    Chan, Golub and LeVeque's formula; means are compared after the first chunk's shift is taken
    off, where they are small numbers.
    """
    own = tl.where(is_aux, chunks_aux, chunks_main)
    start = partial + tl.where(is_aux, chunks_main, 0) * channels + column
    row = (chunks_main + chunks_aux) * channels
    count = (images * inner).to(tl.float32)
    tiles = images * tiles_per_image
    origin = tl.load(start, mask=column < channels, other=0.0)

    total = tl.zeros([BLOCK_C], tl.float32)
    for i in range(0, own, MERGE):
        chunk = i + tl.arange(0, MERGE)
        inside = (chunk < own)[:, None] & (column < channels)[None, :]
        weight = _weights_of(chunk, tiles_per_chunk, tiles, inner, tiles_per_image, BLOCK_E)
        address = start[None, :] + chunk[:, None] * channels
        moved = tl.load(address, mask=inside, other=0.0) - origin[None, :]
        moved += tl.load(address + row, mask=inside, other=0.0)
        total += tl.sum(tl.where(inside, moved * weight[:, None], 0.0), axis=0)
    delta = total / count

    m2 = tl.zeros([BLOCK_C], tl.float32)
    for i in range(0, own, MERGE):
        chunk = i + tl.arange(0, MERGE)
        inside = (chunk < own)[:, None] & (column < channels)[None, :]
        weight = _weights_of(chunk, tiles_per_chunk, tiles, inner, tiles_per_image, BLOCK_E)
        address = start[None, :] + chunk[:, None] * channels
        apart = tl.load(address, mask=inside, other=0.0) - origin[None, :]
        apart += tl.load(address + row, mask=inside, other=0.0) - delta[None, :]
        within = tl.load(address + 2 * row, mask=inside, other=0.0)
        m2 += tl.sum(tl.where(inside, within + apart * apart * weight[:, None], 0.0), axis=0)
    mean = origin + delta
    return mean, delta - (mean - origin), m2 / count
