"""Run chains of image operations on 8-bit levels: two launches an operation, one to mix."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import on_device_of
from .image_chains_statistics import (
    AUTOCONTRAST,
    COLOR,
    FRACTION,
    INVERT,
    NEAREST,
    NEAREST_FRACTION,
    ROTATE,
    SHARPNESS,
    TRANSLATE_Y,
    blended,
    image_of,
    levels_at,
    luma,
    prepare,
    strength_of,
)

BLOCK = 512  # pixels of a program, or of one that counts at a time
NUM_WARPS = 8
LARGEST_SIDE = 2**15
WEIGHT = tl.constexpr(11)  # bits of a bilinear weight,
SHIFT = tl.constexpr(13)  # the first of them among the bits of a place,
MASK = tl.constexpr(2**11 - 1)  # and all of them
BACK = tl.constexpr(2**23 - 2**12)  # half a pixel, less half of the last of them
# Blends, mixtures and matrices are the reference's to the bit: a product and a sum, each rounded.
OPTIONS = {"num_warps": NUM_WARPS, "enable_fp_fusion": False}


@triton.jit
def _clipped(place, size):
    return tl.minimum(tl.maximum(place, 0), size - 1)


@triton.jit
def _moved(source, channel, u, v, nearest, height, width, strides, inside):
    """Sample a channel at int64 places, of 2^-16 pixels if nearest, else 2^-24; black outside."""
    bits = tl.where(nearest, NEAREST_FRACTION, FRACTION).to(tl.int64)
    cell_x, cell_y = (u >> bits).to(tl.int32), (v >> bits).to(tl.int32)
    inside &= (cell_x >= 0) & (cell_x < width) & (cell_y >= 0) & (cell_y < height)
    u, v = tl.where(nearest, u, u - BACK), tl.where(nearest, v, v - BACK)
    column, line = (u >> bits).to(tl.int32), (v >> bits).to(tl.int32)
    left, upper = _clipped(column, width), _clipped(line, height)
    right, lower = _clipped(column + 1, width), _clipped(line + 1, height)
    across = tl.where(nearest, 0, (u >> SHIFT) & MASK).to(tl.int32)
    down = tl.where(nearest, 0, (v >> SHIFT) & MASK).to(tl.int32)
    first = levels_at(source, channel, upper, left, strides, inside)
    second = levels_at(source, channel, upper, right, strides, inside)
    above = (first << WEIGHT) + (second - first) * across
    first = levels_at(source, channel, lower, left, strides, inside)
    second = levels_at(source, channel, lower, right, strides, inside)
    below = (first << WEIGHT) + (second - first) * across
    return ((above << WEIGHT) + (below - above) * down) >> (2 * WEIGHT)


@triton.jit
def _smoothed(source, channel, y, x, height, width, strides, inside):
    """Average 3x3 pixels, the middle one five times, rounded; the outermost stay as they are."""
    own = levels_at(source, channel, y, x, strides, inside)
    inner = inside & (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    total = 4 * own
    for down in tl.static_range(-1, 2):
        for right in tl.static_range(-1, 2):
            total += levels_at(source, channel, y + down, x + right, strides, inner)
    return tl.where(inner, (2 * total + 13) // 26, own)


@triton.jit(do_not_specialize=["height", "width", "depth", "step", "chains", "blocks"])
def _apply(
    source,  # uint8, an image for each chain
    codes,  # [B, chains, depth] uint8
    strengths,  # [B, chains, depth] float32
    tables,  # [B, chains, CHANNELS, 256] uint8
    matrices,  # [B, chains, 6] int64
    result,  # [B, chains, CHANNELS, height, width] uint8, out
    height,
    width,
    depth,
    step,
    chains,
    blocks,  # of a chain's pixels
    strides,  # of the source
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) // blocks  # a chain of an image
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    code = tl.load(codes + row * depth + step).to(tl.int32)
    strength = strength_of(strengths, row * depth + step)
    op = code % NEAREST
    source = image_of(source, row, chains, strides)
    y, x, inside = place // width, place % width, place < height * width
    tabled = ((op >= AUTOCONTRAST) & (op < ROTATE)) | ((op > TRANSLATE_Y) & (op <= INVERT))
    tabled = tabled & (op != COLOR) & (op != SHARPNESS)
    for channel in range(CHANNELS):
        if (op >= ROTATE) & (op <= TRANSLATE_Y):
            a = matrices + 6 * row
            u = tl.load(a) * x + tl.load(a + 1) * y + tl.load(a + 2)
            v = tl.load(a + 3) * x + tl.load(a + 4) * y + tl.load(a + 5)
            nearest = (code & NEAREST) > 0
            value = _moved(source, channel, u, v, nearest, height, width, strides, inside)
        else:
            value = levels_at(source, channel, y, x, strides, inside)
            if tabled:
                table = tables + (row * CHANNELS + channel) * 256
                value = tl.load(table + value).to(tl.int32)
            if op == SHARPNESS:
                smooth = _smoothed(source, channel, y, x, height, width, strides, inside)
                value = blended(smooth, value, strength)
            if CHANNELS == 3:
                if op == COLOR:
                    value = blended(luma(source, y, x, strides, inside), value, strength)
        offset = (row * CHANNELS + channel) * height * width + place
        tl.store(result + offset, value.to(tl.uint8), mask=inside)


@triton.jit(do_not_specialize=["width", "pixels", "chains", "blocks"])
def _mix(
    images,  # uint8 [B, CHANNELS, height, width]
    source,  # uint8, an image for each chain
    weights,  # [B, chains] float32
    keep,  # [B] float32
    result,  # uint8 [B, CHANNELS, height, width], out
    width,
    pixels,
    chains,
    blocks,  # of an image's pixels
    image_strides,
    source_strides,
    result_strides,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) // blocks
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    y, x, inside = place // width, place % width, place < pixels
    images += row * image_strides[0]
    source += row * source_strides[0]
    result += row * result_strides[0]
    kept = tl.load(keep + row)
    for channel in range(CHANNELS):
        level = levels_at(images, channel, y, x, image_strides, inside)
        mixed = level.to(tl.float32) * kept
        for chain in range(chains):
            level = levels_at(
                source + tl.cast(chain, tl.int64) * source_strides[1], channel, y, x,
                source_strides, inside,
            )  # fmt: skip
            mixed += level.to(tl.float32) * tl.load(weights + row * chains + chain)
        mixed = tl.minimum(tl.maximum(tl.floor(mixed + 0.5), 0.0), 255.0)
        offset = tl.cast(channel, tl.int64) * result_strides[2] + y.to(tl.int64) * result_strides[3]
        offset += x.to(tl.int64) * result_strides[4]
        tl.store(result + offset, mixed.to(tl.int32).to(tl.uint8), mask=inside)


def covers(images: Tensor, codes: Tensor, strengths: Tensor, weights: Tensor, keep: Tensor) -> bool:
    """Return whether `image_chains` takes this input: some images, in a grid of 31 bits."""
    blocks = triton.cdiv(images.shape[2] * images.shape[3], BLOCK)
    return images.numel() > 0 and len(images) * max(1, codes.shape[1]) * blocks < 2**31


def image_chains(
    images: Tensor, codes: Tensor, strengths: Tensor, weights: Tensor, keep: Tensor
) -> Tensor:
    """Run each image's chains and mix them with it.

    Args:
        images: uint8 `[B, 1 or 3, H, W]`, any strides.
        codes: uint8 `[B, width, depth]`.
        strengths: float32 `[B, width, depth]`.
        weights: float32 `[B, width]`.
        keep: float32 `[B]`.

    Returns:
        uint8, channels_last where `images` are exactly that, else contiguous. `2 depth + 1`
        launches whatever the codes, the same bits at every run.
    """
    batch, channels, height, width = images.shape
    chains, depth = codes.shape[1:]
    pixels = height * width
    blocks = triton.cdiv(pixels, BLOCK)
    codes, strengths = codes.contiguous(), strengths.contiguous()
    last = (pixels * channels, 1, width * channels, channels)
    form = torch.channels_last if images.stride() == last else torch.contiguous_format
    result = torch.empty_like(images, memory_format=form)
    source, strides = images, _strides(images)
    tables = images.new_empty((batch, chains, channels, 256))
    matrices = images.new_empty((batch, chains, 6), dtype=torch.int64)
    with on_device_of(images):
        for step in range(depth if chains else 0):
            target = images.new_empty((batch, chains, channels, height, width))
            given = (source, codes, strengths, tables, matrices)
            sizes = (height, width, depth, step, chains)
            prepare[(batch * chains,)](
                *given, *sizes, strides, CHANNELS=channels, BLOCK=BLOCK, **OPTIONS
            )
            _apply[(batch * chains * blocks,)](
                *given, target, *sizes, blocks, strides, CHANNELS=channels, BLOCK=BLOCK, **OPTIONS
            )
            source, strides = target, target.stride()
        _mix[(batch * blocks,)](
            images, source, weights.contiguous(), keep.contiguous(), result,
            width, pixels, chains, blocks,
            _strides(images), strides, _strides(result),
            CHANNELS=channels, BLOCK=BLOCK, **OPTIONS,
        )  # fmt: skip
    return result


def _strides(images: Tensor) -> tuple[int, ...]:
    """Return the strides of an image, of its chains, which share it, and within it."""
    image, *within = images.stride()
    return (image, 0, *within)
