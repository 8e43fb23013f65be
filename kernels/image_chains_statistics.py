"""Prepare an operation of each chain: its table of levels, or where its pixels come from."""

import triton
import triton.language as tl

# The codes of entprop_fast/ops/image_chains_codes.py, as a kernel may read them.
AUTOCONTRAST = tl.constexpr(1)
EQUALIZE = tl.constexpr(2)
POSTERIZE = tl.constexpr(3)
SOLARIZE = tl.constexpr(4)
ROTATE = tl.constexpr(5)
SHEAR_X = tl.constexpr(6)
SHEAR_Y = tl.constexpr(7)
TRANSLATE_X = tl.constexpr(8)
TRANSLATE_Y = tl.constexpr(9)
BRIGHTNESS = tl.constexpr(10)
COLOR = tl.constexpr(11)
CONTRAST = tl.constexpr(12)
SHARPNESS = tl.constexpr(13)
INVERT = tl.constexpr(14)
NEAREST = tl.constexpr(64)
LARGEST = tl.constexpr(32768.0)
FRACTION = tl.constexpr(24)  # bits of a place, bilinear
NEAREST_FRACTION = tl.constexpr(16)
RADIANS = tl.constexpr(-0.017453292519943295)  # of a degree, anticlockwise


@triton.jit
def levels_at(source, channel, y, x, strides, inside):
    """Load levels as int32, by strides of (image, chain, channel, row, column); 0 if not inside."""
    offset = tl.cast(channel, tl.int64) * strides[2] + y.to(tl.int64) * strides[3]
    level = tl.load(source + offset + x.to(tl.int64) * strides[4], mask=inside, other=0)
    return level.to(tl.int32)


@triton.jit
def image_of(source, row, chains, strides):
    """Return where the image of a chain lies; `row` counts chains, int64."""
    return source + row // chains * strides[0] + row % chains * strides[1]


@triton.jit
def strength_of(strengths, place):
    """Load a strength; NaN counts as 0."""
    strength = tl.load(strengths + place)
    strength = tl.where(strength == strength, strength, 0.0)
    return tl.minimum(tl.maximum(strength, -LARGEST), LARGEST)


@triton.jit
def blended(start, end, factor):
    """Move levels from `start` to `end`, as `PIL.Image.blend`: two roundings to float32."""
    moved = start.to(tl.float32) + (end - start).to(tl.float32) * factor
    return tl.minimum(tl.maximum(moved, 0.0), 255.0).to(tl.int32)


@triton.jit
def luma(source, y, x, strides, inside):
    """Load the ITU-R 601-2 luma of three channels, in 16 bits."""
    red = levels_at(source, 0, y, x, strides, inside)
    green = levels_at(source, 1, y, x, strides, inside)
    blue = levels_at(source, 2, y, x, strides, inside)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


@triton.jit
def _counts(source, channel, pixels, width, strides, BLOCK: tl.constexpr):
    """Count each level of a channel, int32 [256]."""
    counts = tl.zeros([256], tl.int32)
    for start in range(0, pixels, BLOCK):
        place = start + tl.arange(0, BLOCK)
        level = levels_at(source, channel, place // width, place % width, strides, place < pixels)
        counts += tl.histogram(level, 256)
    padded = (pixels + BLOCK - 1) // BLOCK * BLOCK - pixels  # counted as level 0
    return counts - tl.where(tl.arange(0, 256) == 0, padded, 0)


@triton.jit
def _mean(source, pixels, width, strides, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Return the mean luma, rounded half up."""
    total = tl.zeros([BLOCK], tl.int64)
    for start in range(0, pixels, BLOCK):
        place = start + tl.arange(0, BLOCK)
        y, x, inside = place // width, place % width, place < pixels
        if CHANNELS == 3:
            grey = luma(source, y, x, strides, inside)
        else:
            grey = levels_at(source, 0, y, x, strides, inside)
        total += grey  # 0 where it is not inside
    wide = tl.cast(pixels, tl.int64)
    return ((2 * tl.sum(total, axis=0) + wide) // (2 * wide)).to(tl.int32)


@triton.jit
def _stretched(counts, level):
    """Return the table of autocontrast; roundings to float64 of their own, as Pillow's."""
    low = tl.min(tl.where(counts > 0, level, 255), axis=0)
    high = tl.max(tl.where(counts > 0, level, 0), axis=0)
    scale = tl.full([256], 255.0, tl.float64) / tl.maximum(high - low, 1).to(tl.float64)
    value = level.to(tl.float64) * scale + (-low).to(tl.float64) * scale
    value = tl.minimum(tl.maximum(value, 0.0), 255.0)
    return tl.where(high <= low, level, value.to(tl.int32))


@triton.jit
def _equalized(counts, level, pixels):
    """Return the table that gives each of 255 parts of the levels as many pixels."""
    high = tl.max(tl.where(counts > 0, level, 0), axis=0)
    last = tl.sum(tl.where(level == high, counts, 0), axis=0)
    step = (pixels - last) // 255
    below = tl.cumsum(counts, axis=0) - counts
    parts = (step // 2 + below) // tl.maximum(step, 1)
    return tl.where(step == 0, level, tl.minimum(parts, 255))


@triton.jit
def _store_matrix(matrix, op, nearest, strength, height, width):
    """Store a place's six coefficients, int64 in units of a place's bits."""
    s = strength.to(tl.float64)
    none = s * 0.0
    angle = tl.where(op == ROTATE, s, none) * RADIANS
    cos, sin = tl.cos(angle), tl.sin(angle)
    middle_x, middle_y = width.to(tl.float64) / 2, height.to(tl.float64) / 2
    a1 = sin + tl.where(op == SHEAR_X, s, none)
    a3 = tl.where(op == SHEAR_Y, s, none) - sin
    a2 = middle_x - cos * middle_x - sin * middle_y + tl.where(op == TRANSLATE_X, s, none)
    a5 = middle_y + sin * middle_x - cos * middle_y + tl.where(op == TRANSLATE_Y, s, none)
    a2 = a2 + cos / 2 + a1 / 2  # of the middle of pixel (0, 0)
    a5 = a5 + a3 / 2 + cos / 2
    unit = tl.where(nearest, 65536.0, 16777216.0).to(tl.float64)
    tl.store(matrix, tl.floor(cos * unit + 0.5).to(tl.int64))
    tl.store(matrix + 1, tl.floor(a1 * unit + 0.5).to(tl.int64))
    tl.store(matrix + 2, tl.floor(a2 * unit + 0.5).to(tl.int64))
    tl.store(matrix + 3, tl.floor(a3 * unit + 0.5).to(tl.int64))
    tl.store(matrix + 4, tl.floor(cos * unit + 0.5).to(tl.int64))
    tl.store(matrix + 5, tl.floor(a5 * unit + 0.5).to(tl.int64))


@triton.jit(do_not_specialize=["height", "width", "depth", "step", "chains"])
def prepare(
    source,  # uint8, an image for each chain
    codes,  # [B, chains, depth] uint8
    strengths,  # [B, chains, depth] float32
    tables,  # [B, chains, CHANNELS, 256] uint8, out
    matrices,  # [B, chains, 6] int64, out
    height,
    width,
    depth,
    step,
    chains,
    strides,  # of the source
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write what `apply` needs of one operation, in a program for each chain of each image."""
    row = tl.program_id(0).to(tl.int64)
    code = tl.load(codes + row * depth + step).to(tl.int32)
    strength = strength_of(strengths, row * depth + step)
    op = code % NEAREST
    source = image_of(source, row, chains, strides)
    pixels = height * width
    level = tl.arange(0, 256)
    if (op >= ROTATE) & (op <= TRANSLATE_Y):
        _store_matrix(matrices + 6 * row, op, (code & NEAREST) > 0, strength, height, width)
    counted = (op == AUTOCONTRAST) | (op == EQUALIZE)
    toned = (op == BRIGHTNESS) | (op == CONTRAST)
    if counted | toned | (op == POSTERIZE) | (op == SOLARIZE) | (op == INVERT):
        start = op * 0
        if op == CONTRAST:
            start = _mean(source, pixels, width, strides, CHANNELS, BLOCK)
        cut = 8 - tl.minimum(tl.maximum(strength, 0.0), 8.0).to(tl.int32)
        table = tl.where(op == POSTERIZE, (level >> cut) << cut, 255 - level)
        table = tl.where((op == SOLARIZE) & (level.to(tl.float32) < strength), level, table)
        table = tl.where(toned, blended(start + level * 0, level, strength), table)
        for channel in range(CHANNELS):
            if counted:
                counts = _counts(source, channel, pixels, width, strides, BLOCK)
                equalized = _equalized(counts, level, pixels)
                table = tl.where(op == EQUALIZE, equalized, _stretched(counts, level))
            tl.store(tables + (row * CHANNELS + channel) * 256 + level, table.to(tl.uint8))
