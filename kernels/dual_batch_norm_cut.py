"""Decide how a dual batch norm is cut: the size of a tile, and the chunks of each group.

All programs of a launch are to be resident at once: one wave, as full as it gets.
"""

import os
from math import isqrt
from typing import NamedTuple

# Counts, and offsets within a tile or an image, are 32 bits wide and run at most a tile past the
# end; a tile spans 128 rows of channels, the partial sums about as many.
MAX_COUNT = 2**31 - 16384
_MAX_ROWS, _MAX_PIXELS = 256, 1024  # of a tile
_MIN_RUN = 64  # bytes of a plane: what memory moves at once
# What a choice of tiles leaves: chunks enough to give a small group its share, and of a wave most.
_ENOUGH_CHUNKS, _ENOUGH_FILL = 4, 0.85


def _switch(name: str, *values: int) -> int:
    found = os.environ.get(name, str(values[0]))
    if found not in map(str, values):
        raise ValueError(f"{name} must be one of {', '.join(map(str, values))}, got {found!r}")
    return int(found)


class Cut(NamedTuple):
    """Hold what decides about all shapes; each field is a thing to try on another card."""

    tile_bytes: int = 16384  # channels_last: four 16-byte loads a thread and tensor
    plane_tile_bytes: int = 8192
    block_c: int = 64  # channels of a channels_last tile, at most
    programs: int = 2  # a multiprocessor: as many as have its registers
    num_warps: int = 8
    # Every program of the second launch reads the sums of all chunks, 12 bytes each: more chunks
    # only where all of that is less than the tensor.
    max_chunks: int = 128
    sum_bytes: int = 12
    merge_size: int = 4096  # partial sums merged at a time, chunks x channels
    stages: int = 1  # tiles that a loop has in flight; 1 leaves that to the hardware
    overlaps: int = 0  # whether a second launch may begin before the first has ended


# The switches are read once; a new value of CUT is heeded from the next call on.
CUT = Cut(
    stages=_switch("ENTPROP_NORM_STAGES", 1, 2, 3, 4), overlaps=_switch("ENTPROP_NORM_PDL", 0, 1)
)


# As triton.cdiv and triton.next_power_of_2, without their look for constexprs.
def cdiv(count: int, size: int) -> int:
    """Divide, rounding up."""
    return -(-count // size)


def power_of_2(count: int) -> int:
    """Round up to a power of 2."""
    return 1 << (count - 1).bit_length()


def tile_of_channels(channels: int, itemsize: int, halves: bool, slots: int, cut: Cut) -> list[int]:
    """Return BLOCK_E and BLOCK_C where channels are innermost."""
    tile = cut.tile_bytes // itemsize
    if channels % 16:
        # Elements are addressed one by one, which takes twice the registers.
        tile = min(tile, cut.plane_tile_bytes // itemsize) // 2
    if halves or cut.stages > 1:  # a pipelined loop takes registers as a third tensor does
        tile //= 2
    widest = min(cut.block_c, power_of_2(channels))
    sizes = [widest, 32] if widest > 32 else [widest]
    sizes.sort(key=lambda size: -channels % size)  # 160 channels are 5 x 32, 640 are 10 x 64
    return _first_that_fills(
        [[min(_MAX_ROWS, tile // size), size] for size in sizes], channels, slots, cut
    )


def tile_of_planes(
    channels: int, pixels: int, itemsize: int, slots: int, cut: Cut
) -> list[int]:  # fmt: skip
    """Return BLOCK_E and BLOCK_C where pixels are innermost."""
    tile = cut.plane_tile_bytes // itemsize
    if pixels % 16:
        tile //= 2
    block_e = min(_MAX_PIXELS, tile, power_of_2(pixels))
    lengths = [block_e]
    while lengths[-1] * itemsize > _MIN_RUN:
        lengths.append(lengths[-1] // 2)
    tiles = [[length, min(256, tile // length, power_of_2(channels))] for length in lengths]
    return _first_that_fills(tiles, channels, slots, cut)


def _first_that_fills(tiles: list[list[int]], channels: int, slots: int, cut: Cut) -> list[int]:
    fills = []
    for tile in tiles:
        blocks = cdiv(channels, tile[1])
        chunks = min(cut.max_chunks, slots // blocks)
        fills.append(blocks * chunks / slots)
        if chunks >= _ENOUGH_CHUNKS and fills[-1] >= _ENOUGH_FILL:
            return tile
    return tiles[fills.index(max(fills))]


def chunks_of_groups(
    tiles: tuple[int, int], blocks: int, channel_bytes: int, slots: int, cut: Cut
) -> tuple[int, int]:  # fmt: skip
    """Share the chunks of a wave among two groups of so many tiles, so that the longest is short.

    A group that has tiles has a chunk, even where one wave has no place for it.
    """
    merged = max(cut.max_chunks, isqrt(channel_bytes // cut.sum_bytes))
    chunks = max(min(merged, slots // blocks), sum(group > 0 for group in tiles))
    longest = cdiv(sum(tiles), chunks)
    main, aux = (cdiv(group, longest) for group in tiles)
    if main + aux > chunks:  # by one, for both were rounded up
        longest = min(
            cdiv(group, own - 1) for group, own in zip(tiles, (main, aux), strict=True) if own > 1
        )
        aux = cdiv(tiles[1], longest)
    main = min(tiles[0], chunks - aux)
    return main, min(tiles[1], chunks - main)
