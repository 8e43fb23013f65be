"""Cut a dual batch norm into programs, on the host and inside its kernels.

One scheme serves both layouts. A *tile* is BLOCK_E elements of one channel x BLOCK_C channels. The
elements of a channel come in *images* of `inner` elements: in channels_last the N*H*W rows of a
group are one image, in contiguous layout an image has H*W elements, so that a tile is one
unbroken run of memory wherever H*W <= BLOCK_E. A *chunk* is a run of tiles within one group, so
that no program selects between groups element by element.
"""

from functools import lru_cache
from typing import NamedTuple
from warnings import warn

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import dual_batch_norm_cut as cutting
from .device import KERNEL_DTYPES, Card, card_of
from .dual_batch_norm_cut import MAX_COUNT, Cut, cdiv, power_of_2

# Sizes that change with the batch must neither recompile a kernel nor become compile-time ones.
UNSPECIALIZED = ["num_main", "num_aux", "chunks_main", "chunks_aux", "training", "aux_training"]
MAX_CHANNELS = 2**23


class Plan(NamedTuple):
    """Hold the launch grid and the integers every kernel of the op takes."""

    grid: tuple[int, int]  # channel blocks, chunks of both groups
    sizes: tuple[int, int, int, int, int, int]  # in the order of the kernels' arguments
    specialized: tuple[int, int]  # those of the sizes by which Triton tells kernels apart
    constants: dict[str, int]
    num_warps: int
    overlaps: bool  # whether a second launch begins before the first has ended
    channels_last: bool


def make_plan(x: Tensor, num_main: int, tensors: int = 2) -> Plan:
    """Cut `x` `[N, C, ...]`, rows `[0, num_main)` main, into tiles, chunks and programs.

    `tensors` are read side by side at most; more than two leave registers for half a tile.
    """
    card = card_of(x.device)
    return _plan(
        x.shape, num_main, x.is_contiguous(), x.element_size(), tensors > 2, card, cutting.CUT
    )


# A plan is made at every call, and of few shapes.
@lru_cache(maxsize=1024)
def _plan(
    shape: torch.Size, num_main: int, contiguous: bool, itemsize: int, halves: bool, card: Card,
    cut: Cut,
) -> Plan:  # fmt: skip
    images, channels = shape[:2]
    pixels = shape[2:].numel()
    groups = num_main, images - num_main
    channels_last = pixels == 1 or not contiguous
    slots = cut.programs * card.multiprocessors
    if channels_last:
        block_e, block_c = cutting.tile_of_channels(channels, itemsize, halves, slots, cut)
        block_e = min(block_e, power_of_2(images * pixels))
        tiles = (cdiv(groups[0] * pixels, block_e), cdiv(groups[1] * pixels, block_e))
        # What one 16-byte load of every thread covers: its sums stay within the thread.
        sums_e = min(block_e, cut.num_warps * 32 * 16 // itemsize // block_c)
    else:
        block_e, block_c = cutting.tile_of_planes(channels, pixels, itemsize, slots, cut)
        tiles = (groups[0] * cdiv(pixels, block_e), groups[1] * cdiv(pixels, block_e))
        sums_e = block_e
    blocks = cdiv(channels, block_c)
    chunks = cutting.chunks_of_groups(tiles, blocks, images * pixels * itemsize, slots, cut)
    merged = cut.merge_size if channels % 16 == 0 else cut.merge_size // 4  # again one by one
    if cut.overlaps and not card.overlaps:
        warn("ENTPROP_NORM_PDL does nothing here: it needs sm_90 or newer", stacklevel=4)
    overlaps = bool(cut.overlaps) and card.overlaps
    return Plan(
        grid=(blocks, sum(chunks)),
        sizes=(*groups, channels, pixels, *chunks),
        specialized=(channels, pixels),
        constants={
            "CHANNELS_LAST": channels_last,
            "BLOCK_E": block_e,
            "BLOCK_C": block_c,
            "SUMS_E": sums_e,
            "MERGE": max(1, min(power_of_2(cut.max_chunks), merged // block_c)),
            "STAGES": cut.stages,
            "OVERLAPS": overlaps,
        },
        num_warps=cut.num_warps,
        overlaps=overlaps,
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
def first_tile(chunk, own, tiles):
    """Return the first tile of a chunk, of `own` that differ by a tile at most."""
    least = tiles // own
    return chunk * least + tl.minimum(chunk, tiles - own * least)


@triton.jit
def chunk_of(
    pid,
    num_main,
    num_aux,
    pixels,
    chunks_main,
    chunks_aux,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Return a program's group, images, elements and tiles an image, and tiles [first, last)."""
    is_aux = pid >= chunks_main
    images = tl.where(is_aux, num_aux, num_main)
    chunk = pid - tl.where(is_aux, chunks_main, 0)
    own = tl.where(is_aux, chunks_aux, chunks_main)
    if CHANNELS_LAST:
        inner = images * pixels
        images = tl.full([], 1, tl.int32)
    else:
        inner = tl.cast(pixels, tl.int32)
    tiles_per_image = tl.cdiv(inner, BLOCK_E)
    tiles = images * tiles_per_image
    first = first_tile(chunk, own, tiles)
    return is_aux, images, inner, tiles_per_image, first, first_tile(chunk + 1, own, tiles)


@triton.jit
def let_next_begin(OVERLAPS: tl.constexpr):
    """Allow the second launch to begin, which waits for the end of this one."""
    if OVERLAPS:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait_for_previous(OVERLAPS: tl.constexpr):
    """Wait until all of the first launch has ended and what it wrote can be read."""
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()


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
