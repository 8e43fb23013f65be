"""Cut a dual batch norm into programs, on the host and inside its kernels.

One scheme serves both layouts. A *tile* is BLOCK_E elements of one channel x BLOCK_C channels. The
elements of a channel come in *images* of `inner` elements: in channels_last the N*H*W rows of a
group are one image, in contiguous layout an image has H*W elements, so that a tile is one
unbroken run of memory wherever H*W <= BLOCK_E. A *chunk* is a run of tiles within one group, so
that no program selects between groups element by element.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import KERNEL_DTYPES

# Sizes that change with the batch must neither recompile a kernel nor become compile-time ones.
UNSPECIALIZED = ["num_main", "num_aux", "chunks_main", "chunks_aux", "tiles_per_chunk"]
UNSPECIALIZED += ["training", "aux_training"]
NUM_WARPS = 8
TILE_BYTES = 16384  # channels_last: four 16-byte loads a thread and tensor
PLANE_TILE_BYTES = 8192
# One wave, two programs on each multiprocessor of an H100: what a program does once (its launch,
# the first load, the last sums) costs as much as many tiles.
MAX_PROGRAMS = 264
MAX_CHUNKS = 128  # each program of the second launch merges the partial sums of all chunks
MERGE_SIZE = 4096  # partial sums merged at a time, chunks x channels
# Counts, and offsets within a tile or an image, are 32 bits wide and run at most a tile past the
# end; a tile spans 128 rows of channels, the partial sums about as many.
MAX_COUNT = 2**31 - TILE_BYTES
MAX_CHANNELS = 2**23


class Plan(NamedTuple):
    """Hold the launch grid and the integers every kernel of the op takes."""

    grid: tuple[int, int]  # channel blocks, chunks of both groups
    sizes: tuple[int, int, int, int, int, int, int]  # in the order of the kernels' arguments
    specialized: tuple[int, int]  # those of the sizes by which Triton tells kernels apart
    constants: dict[str, int]
    channels_last: bool


# As triton.cdiv and triton.next_power_of_2, which look for constexprs in 3 us each; a plan is made
# at every call.
def _cdiv(count: int, size: int) -> int:
    return -(-count // size)


def _power_of_2(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _block_of_channels(channels: int) -> int:
    if channels <= 32:
        return _power_of_2(channels)
    # 64 unless 32 wastes fewer masked lanes: 160 channels are 5 x 32, 640 are 10 x 64.
    return 64 if -channels % 64 <= -channels % 32 else 32


def make_plan(x: Tensor, num_main: int, tensors: int = 2) -> Plan:
    """Cut `x` `[N, C, ...]`, rows `[0, num_main)` main, into tiles, chunks and programs.

    `tensors` are read side by side at most; more than two leave registers for half a tile.
    """
    images, channels = x.shape[:2]
    pixels = x.shape[2:].numel()
    num_aux = images - num_main
    channels_last = pixels == 1 or not x.is_contiguous()
    tile = (TILE_BYTES if channels_last else PLANE_TILE_BYTES) // x.element_size()
    if (channels if channels_last else pixels) % 16:
        # Elements are addressed one by one, which takes twice the registers.
        tile = min(tile, PLANE_TILE_BYTES // x.element_size()) // 2
    if channels_last:
        if tensors > 2:
            tile //= 2
        block_c = _block_of_channels(channels)
        block_e = min(256, tile // block_c, _power_of_2(images * pixels))
        tiles = [_cdiv(group * pixels, block_e) for group in (num_main, num_aux)]
        # What one 16-byte load of every thread covers: its sums stay within the thread.
        sums_e = min(block_e, NUM_WARPS * 32 * 16 // x.element_size() // block_c)
    else:
        block_e = min(1024, _power_of_2(pixels))
        block_c = min(256, tile // block_e, _power_of_2(channels))
        tiles = [group * _cdiv(pixels, block_e) for group in (num_main, num_aux)]
        sums_e = block_e
    merged = MERGE_SIZE if channels % 16 == 0 else MERGE_SIZE // 4  # again one by one
    blocks = _cdiv(channels, block_c)
    chunks = max(1, min(MAX_CHUNKS, MAX_PROGRAMS // blocks))
    tiles_per_chunk = _cdiv(sum(tiles), chunks)
    chunks_main, chunks_aux = (_cdiv(group, tiles_per_chunk) for group in tiles)
    return Plan(
        grid=(blocks, chunks_main + chunks_aux),
        sizes=(num_main, num_aux, channels, pixels, chunks_main, chunks_aux, tiles_per_chunk),
        specialized=(channels, pixels),
        constants={
            "CHANNELS_LAST": channels_last,
            "BLOCK_E": block_e,
            "BLOCK_C": block_c,
            "SUMS_E": sums_e,
            "MERGE": max(1, min(_power_of_2(MAX_CHUNKS), merged // block_c)),
        },
        channels_last=channels_last,
    )


def covers_input(x: Tensor, *like_x: Tensor | None) -> bool:
    """Return whether the kernels take `x`, of any layout, and tensors beside it like it."""
    shape, count = x.shape, x.numel()
    if x.dtype not in KERNEL_DTYPES or len(shape) < 2 or count == 0:
        return False
    for t in like_x:
        if t is not None and not (t.dtype == x.dtype and t.shape == shape and t.device == x.device):
            return False
    channels = shape[1]
    return max(count // shape[0], count // channels) < MAX_COUNT and channels < MAX_CHANNELS


def covers_parameters(x: Tensor, *parameters: Tensor | None) -> bool:
    """Return whether the kernels take these per-channel tensors beside `x`."""
    return all(
        p is None or (p.dtype in KERNEL_DTYPES and p.is_contiguous() and p.device == x.device)
        for p in parameters
    )


def dense(x: Tensor) -> Tensor:
    """Return `x` itself where it is contiguous or channels_last, else a copy."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()


def in_layout_of(x: Tensor, other: Tensor, plan: Plan) -> Tensor:
    """Return `other` itself where it lies in memory as `x` does, else a copy that does."""
    if plan.channels_last and x.dim() == 4:
        return other.contiguous(memory_format=torch.channels_last)
    return other.contiguous()


@triton.jit
def chunk_of(
    pid,
    num_main,
    num_aux,
    pixels,
    chunks_main,
    tiles_per_chunk,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Return a program's group, images, elements and tiles an image, and tiles [first, last)."""
    is_aux = pid >= chunks_main
    images = tl.where(is_aux, num_aux, num_main)
    chunk = pid - tl.where(is_aux, chunks_main, 0)
    if CHANNELS_LAST:
        inner = images * pixels
        images = tl.full([], 1, tl.int32)
    else:
        inner = tl.cast(pixels, tl.int32)
    tiles_per_image = tl.cdiv(inner, BLOCK_E)
    first = chunk * tiles_per_chunk
    last = tl.minimum(first + tiles_per_chunk, images * tiles_per_image)
    return is_aux, images, inner, tiles_per_image, first, last


@triton.jit
def tile_of(
    tile,
    is_aux,
    inner,
    tiles_per_image,
    num_main,
    channels,
    pixels,
    column,  # [BLOCK_C]
    CHANNELS_LAST: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Return a tile's address, 64-bit base and 32-bit offsets [BLOCK_E, BLOCK_C], and its mask."""
    element = tl.arange(0, BLOCK_E)
    group = tl.where(is_aux, num_main, 0)
    if CHANNELS_LAST:
        start = tile * BLOCK_E
        base = (group.to(tl.int64) * pixels + start) * channels
        offset = element[:, None] * channels + column[None, :]
    else:
        image = tile // tiles_per_image
        start = (tile - image * tiles_per_image) * BLOCK_E
        base = (image.to(tl.int64) + group) * channels * pixels + start
        offset = column[None, :] * pixels + element[:, None]
    mask = (start + element < inner)[:, None] & (column < channels)[None, :]
    return base, offset, mask


@triton.jit
def within_threads(values, BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr, SUMS_E: tl.constexpr):
    """Sum what each thread holds of a channel: `[BLOCK_E, BLOCK_C]` to `[SUMS_E, BLOCK_C]`."""
    if SUMS_E == BLOCK_E:
        return values
    return tl.sum(tl.reshape(values, [BLOCK_E // SUMS_E, SUMS_E, BLOCK_C]), axis=0)


@triton.jit
def elements_before(
    tile, inner, tiles_per_image, CHANNELS_LAST: tl.constexpr, BLOCK_E: tl.constexpr
):  # fmt: skip
    """Count the elements of a channel before a tile of its group."""
    if CHANNELS_LAST:
        return tl.minimum(tile * BLOCK_E, inner)
    image = tile // tiles_per_image
    return image * inner + tl.minimum((tile - image * tiles_per_image) * BLOCK_E, inner)


@triton.jit
def load_channel(main, aux, is_aux, column, channels, default):
    """Load main's or auxiliary's values in float32, `default` where there is no tensor."""
    value = tl.zeros(column.shape, tl.float32) + default
    if is_aux:
        if aux is not None:
            value = tl.load(aux + column, mask=column < channels, other=0.0).to(tl.float32)
    else:
        if main is not None:
            value = tl.load(main + column, mask=column < channels, other=0.0).to(tl.float32)
    return value


@triton.jit
def store_group_row(pointer, value, is_aux, num_main, num_aux, column, channels):
    """Write `value` to a group's row of a [2, channels] tensor, zeros to an empty group's."""
    own = tl.where(is_aux, channels, 0) + column
    tl.store(pointer + own, value, mask=column < channels)
    if (num_main == 0) | (num_aux == 0):
        other = tl.where(is_aux, 0, channels) + column
        tl.store(pointer + other, tl.zeros_like(value), mask=column < channels)
