"""Draw the numbers of PRIME's primitives, and of each image only what its primitive takes."""

import triton
import triton.language as tl

WARP = tl.constexpr(1)  # as `Primitive` of entprop_fast/ops/prime_chains.py
COLOR = tl.constexpr(2)
FILTER = tl.constexpr(3)
PI = tl.constexpr(3.14159265358979323)

_GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = tl.constexpr(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = tl.constexpr(0x94D049BB133111EB)


@triton.jit
def sine_cosine(quarters):
    """Return sine and cosine of so many quarter turns, at least 0; Cephes' polynomials."""
    quarter = (quarters + 0.5).to(tl.int32)
    r = (quarters - quarter.to(tl.float32)) * (PI / 2)
    z = r * r
    s = ((z * -1.9515295891e-4 + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r
    c = ((z * 2.443315711809948e-5 - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z
    c = c - 0.5 * z + 1
    odd = (quarter & 1) != 0
    sine, cosine = tl.where(odd, c, s), tl.where(odd, s, c)
    sine = tl.where((quarter & 2) != 0, -sine, sine)
    return sine, tl.where(((quarter + 1) & 2) != 0, -cosine, cosine)


@triton.jit
def _uniform(bits):
    return (bits.to(tl.int32).to(tl.float32) + 0.5) * 1.1920928955078125e-07  # 2^-23


@triton.jit
def normal_pair(key, word):
    """Return normal numbers 2 word and 2 word + 1 of a key: entprop_fast/counter_random.py."""
    w = (word + 1).to(tl.uint64) * _GOLDEN + key.to(tl.uint64, bitcast=True)
    w = (w ^ (w >> 30)) * _MULTIPLIER_1
    w = (w ^ (w >> 27)) * _MULTIPLIER_2
    w = w ^ (w >> 31)
    radius = tl.sqrt(-2 * tl.log(_uniform((w >> 9) & 0x7FFFFF)))
    sine, cosine = sine_cosine(_uniform(w >> 41) * 4)
    return radius * cosine, radius * sine


@triton.jit(do_not_specialize=["slot", "slots", "count", "highest"])
def draw_numbers(
    codes,  # [S * slots] uint8
    keys,  # likewise, int64
    scale,  # likewise, float32
    numbers,  # [S, count] float32, out: a curve's amplitudes or a filter's entries
    slot,
    slots,
    count,
    highest,
    KERNEL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Draw for the colours and filters of one slot of each chain."""
    chain = tl.program_id(0).to(tl.int64)
    code = tl.load(codes + chain * slots + slot)
    wanted = tl.where(code == COLOR, 3 * highest, tl.where(code == FILTER, KERNEL * KERNEL, 0))
    if tl.program_id(1) * (2 * BLOCK) < wanted:
        word = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        even, odd = normal_pair(tl.load(keys + chain * slots + slot), word)
        amount = tl.load(scale + chain * slots + slot)
        one = tl.where(code == FILTER, (KERNEL + 1) // 2 * (KERNEL + 1), -1)
        even = even * amount + tl.where(2 * word == one, 1.0, 0.0)
        odd = odd * amount + tl.where(2 * word + 1 == one, 1.0, 0.0)
        place = numbers + chain * count + 2 * word
        tl.store(place, even, mask=2 * word < wanted)
        tl.store(place + 1, odd, mask=2 * word + 1 < wanted)


@triton.jit(do_not_specialize=["slot", "slots", "chains", "highest"])
def draw_modes(
    codes,  # [chains * slots] uint8
    keys,  # likewise, int64
    bands,  # [chains * slots, 2] int32
    scale,  # [chains * slots] float32
    modes,  # [2, chains, height - 2, width - 2] float32, out: of dx and of dy
    slot,
    slots,
    chains,
    highest,
    height,
    width,
    BLOCK: tl.constexpr,
):
    """Draw the modes of the warps of one slot of each chain; the others' are left as they are."""
    chain = tl.program_id(0).to(tl.int64)
    if tl.load(codes + chain * slots + slot) == WARP:
        columns = width - 2
        total = (height - 2) * columns
        word = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        row, column = word // columns + 1, word % columns + 1
        cut = tl.load(bands + (chain * slots + slot) * 2 + 1)
        cut = tl.minimum(tl.maximum(cut, 1), highest)
        limit = (cut + 0.5) * (cut + 0.5)
        variance = tl.zeros([BLOCK], tl.float32)
        # All modes that look alike, (2 q (n - 1) +- i) for every q, as far as they are in the disc.
        for around_y in range(0, cut + height, 2 * (height - 1)):
            for around_x in range(0, cut + width, 2 * (width - 1)):
                for sign_y in tl.static_range(-1, 2, 2):
                    for sign_x in tl.static_range(-1, 2, 2):
                        i = around_y + sign_y * row
                        j = around_x + sign_x * column
                        squared = (i * i + j * j).to(tl.float32)
                        inside = (i > 0) & (j > 0) & (squared < limit)
                        variance += tl.where(inside, 1 / tl.maximum(squared, 1.0), 0.0)
        x, y = normal_pair(tl.load(keys + chain * slots + slot), word)
        spread = tl.sqrt(variance) * tl.load(scale + chain * slots + slot)
        to = modes + chain * total + word
        tl.store(to, x * spread * width, mask=word < total)
        tl.store(to + chains * total.to(tl.int64), y * spread * height, mask=word < total)
