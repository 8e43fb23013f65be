"""Run PRIME's chains: a launch applies one primitive of each chain to all images, one mixes."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import on_device_of
from .prime_draws import COLOR, FILTER, WARP, draw_modes, draw_numbers, sine_cosine

BLOCK = 1024  # pixels of a program
BLOCK_WORDS = 256
NUM_WARPS = 4
LARGEST_SIDE = 2**14


@triton.jit
def _within(place, last):
    return tl.minimum(tl.maximum(place, 0.0), last)


@triton.jit
def _bent(x, numbers, first, last):
    """Add the sines of a curve: Clenshaw's sum in Reinsch's form, bright values mirrored."""
    bright = x > 0.5
    mirrored = tl.where(bright, 1 - x, x)
    sign = tl.where(bright, -1.0, 1.0)
    sine, _ = sine_cosine(mirrored)  # of half the angle
    delta = -4 * sine * sine
    total, step = tl.zeros_like(x), tl.zeros_like(x)
    for back in range(0, last - first + 1):
        k = last - back
        amplitude = tl.load(numbers + 3 * (k - 1))
        step += amplitude * tl.where(k % 2 == 0, sign, 1.0) + delta * total
        total += step
    sine, _ = sine_cosine(mirrored * (2 * first))
    before, _ = sine_cosine(mirrored * (2 * (first - 1)))
    return x + total * sine - (total - step) * before


@triton.jit(
    do_not_specialize=["slot", "slots", "count", "highest", "share", "image_stride", "unit"]
)
def _apply(
    source,  # uint8 or float32, the values of chain s from (s // share) * image_stride on
    to,  # [S, C, H * W] float32, out
    codes,  # [S * slots] uint8
    bands,  # [S * slots, 2] int32
    numbers,  # [S, count] float32
    dx,  # [S, H * W] float32
    dy,
    slot,
    slots,
    count,
    highest,
    share,
    image_stride,
    channel_stride,
    pixel_stride,
    unit,
    channels,
    height,
    width,
    KERNEL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    channel = tl.program_id(0) % channels
    chain = (tl.program_id(0) // channels).to(tl.int64)
    plane = height * width
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < plane
    source += chain // share * image_stride + channel * channel_stride
    code = tl.load(codes + chain * slots + slot)
    if code == WARP:
        x, y = pixel % width, pixel // width
        x = _within(x - tl.load(dx + chain * plane + pixel, mask=inside, other=0.0), width - 1.0)
        y = _within(y - tl.load(dy + chain * plane + pixel, mask=inside, other=0.0), height - 1.0)
        left, top = x.to(tl.int32), y.to(tl.int32)
        tx, ty = x - left, y - top
        right = tl.minimum(left + 1, width - 1)
        bottom = tl.minimum(top + 1, height - 1)
        a = tl.load(source + (top * width + left) * pixel_stride, mask=inside, other=0)
        b = tl.load(source + (top * width + right) * pixel_stride, mask=inside, other=0)
        c = tl.load(source + (bottom * width + left) * pixel_stride, mask=inside, other=0)
        d = tl.load(source + (bottom * width + right) * pixel_stride, mask=inside, other=0)
        upper = a.to(tl.float32) * (1 - tx) + b.to(tl.float32) * tx
        lower = c.to(tl.float32) * (1 - tx) + d.to(tl.float32) * tx
        result = (upper * (1 - ty) + lower * ty) / unit
    elif code == FILTER:
        result = tl.zeros([BLOCK], tl.float32)
        for i in tl.static_range(KERNEL):
            for j in tl.static_range(KERNEL):
                y, x = pixel // width + (i - KERNEL // 2), pixel % width + (j - KERNEL // 2)
                here = inside & (x >= 0) & (x < width) & (y >= 0) & (y < height)
                value = tl.load(source + (y * width + x) * pixel_stride, mask=here, other=0)
                weight = tl.load(numbers + chain * count + i * KERNEL + j)
                result += weight * value.to(tl.float32)
        result = _within(result / unit, 1.0)
    else:
        result = tl.load(source + pixel * pixel_stride, mask=inside, other=0).to(tl.float32) / unit
        if code == COLOR:
            band = bands + (chain * slots + slot) * 2
            first = tl.minimum(tl.maximum(tl.load(band), 1), highest)
            last = tl.minimum(tl.maximum(tl.load(band + 1), 1), highest)
            result = _within(_bent(result, numbers + chain * count + channel, first, last), 1.0)
    tl.store(to + (chain * channels + channel) * plane + pixel, result, mask=inside)


@triton.jit(do_not_specialize=["image_stride", "unit"])
def _mix(
    images,
    chains,  # [B, width, C, H * W] float32
    weights,  # [B, WIDTH]
    keep,  # [B]
    to,  # like images
    image_stride,
    channel_stride,
    pixel_stride,
    unit,
    channels,
    plane,
    WIDTH: tl.constexpr,
    ROUND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    channel = tl.program_id(0) % channels
    image = (tl.program_id(0) // channels).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < plane
    place = image * image_stride + channel * channel_stride + pixel * pixel_stride
    start = tl.load(images + place, mask=inside, other=0).to(tl.float32) / unit
    result = tl.load(keep + image) * start
    for w in tl.static_range(WIDTH):
        chain = ((image * WIDTH + w) * channels + channel) * plane + pixel
        value = tl.load(chains + chain, mask=inside, other=0.0)
        result += tl.load(weights + image * WIDTH + w) * value
    if ROUND:
        result = tl.minimum(tl.maximum(tl.floor(result * 255 + 0.5), 0.0), 255.0)
        tl.store(to + place, result.to(tl.int32).to(tl.uint8), mask=inside)
    else:
        tl.store(to + place, result, mask=inside)


def covers(images: Tensor, codes: Tensor, *rest: object) -> bool:
    """Return whether `prime_chains` takes these images: some, and not gigantic ones."""
    return images.numel() > 0 and codes.numel() > 0 and max(images.shape[2:]) <= LARGEST_SIDE


def _sines(pixels: int, device: torch.device) -> Tensor:
    """Return sin(pi i x) at x = 0 ... 1 for i of 1 ... pixels - 2, [pixels, pixels - 2]."""
    places = torch.arange(pixels, device=device)[:, None]
    modes = torch.arange(1, max(pixels - 1, 1), device=device)
    turns = max(2 * (pixels - 1), 1)
    return (places * modes % turns).double().mul_(2 * math.pi / turns).sin_().float()


def prime_chains(
    images: Tensor,
    codes: Tensor,
    keys: Tensor,
    bands: Tensor,
    scale: Tensor,
    weights: Tensor,
    keep: Tensor,
    highest: int,
    kernel: int,
) -> Tensor:
    """Run chains of PRIME's primitives; see `entprop_fast.ops.prime_chains`.

    Every image is read and written once for each slot of a chain; displacements are two batched
    products of what `draw_modes` leaves. Plain PyTorch computes all three primitives everywhere:
    counted at 224 pixels and nine slots it moves 1.7 GB an image, in 800 launches, where this
    moves about 35 MB in 40.
    """
    count, channels, height, width = images.shape
    chains, slots = count * codes.shape[1], codes.shape[2]
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    images = images if last else images.contiguous()
    plane = height * width
    out = torch.empty_like(images)
    strides = (1, channels) if last else (plane, 1)
    whole, unit = channels * plane, 255.0 if images.dtype == torch.uint8 else 1.0
    codes, keys, bands, scale, weights, keep = (
        value.contiguous() for value in (codes, keys, bands, scale, weights, keep)
    )
    numbers = images.new_empty(chains, max(3 * highest, kernel * kernel), dtype=torch.float32)
    here, there = (images.new_empty(chains, channels, plane, dtype=torch.float32) for _ in range(2))
    modes = images.new_empty(2, chains, max(height - 2, 0), max(width - 2, 0), dtype=torch.float32)
    along_y, along_x = _sines(height, images.device), _sines(width, images.device).mT
    grid = (chains * channels, triton.cdiv(plane, BLOCK))
    with on_device_of(images):
        for slot in range(slots):
            draw_numbers[(chains, triton.cdiv(numbers.shape[1], 2 * BLOCK_WORDS))](
                *(codes, keys, scale, numbers),
                *(slot, slots, numbers.shape[1], highest),
                KERNEL=kernel,
                BLOCK=BLOCK_WORDS,
                num_warps=NUM_WARPS,
            )
            if modes.numel():
                draw_modes[(chains, triton.cdiv(modes[0, 0].numel(), BLOCK_WORDS))](
                    *(codes, keys, bands, scale, modes),
                    *(slot, slots, chains, highest, height, width),
                    BLOCK=BLOCK_WORDS,
                    num_warps=NUM_WARPS,
                )
            partial = torch.bmm(along_y.expand(2 * chains, -1, -1), modes.flatten(0, 1))
            dx, dy = torch.matmul(partial, along_x).view(2, chains, plane)
            first = slot == 0
            _apply[grid](
                *(images if first else there, here, codes, bands, numbers, dx, dy),
                *(slot, slots, numbers.shape[1], highest),
                *(codes.shape[1] if first else 1, whole),
                *(strides if first else (plane, 1)),
                *(unit if first else 1.0, channels, height, width),
                KERNEL=kernel,
                BLOCK=BLOCK,
                num_warps=NUM_WARPS,
            )
            here, there = there, here
        _mix[(count * channels, grid[1])](
            *(images, there, weights, keep, out),
            *(whole, *strides, unit, channels, plane),
            WIDTH=codes.shape[1],
            ROUND=images.dtype == torch.uint8,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
        )
    return out
