"""Draw random numbers that are a pure function of their place: no generator, no state.

A word is a 64-bit integer kept in an int64 tensor, whose products wrap on every device. The mixing
function is SplitMix64's (Steele, Lea and Flood, OOPSLA 2014), and one row of draws is the
SplitMix64 stream of that row's key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def _signed(word: int) -> int:
    """Return the int64 with the same bits as the low 64 of ``word``."""
    word &= _MASK
    return word - (1 << 64) if word >> 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = _signed(0x94D049BB133111EB)


def mix(words: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser, a bijection of int64 in which every bit moves every bit."""
    # In place on what the shifts have made: half the memory to go through.
    words = _shift_right(words, 30).bitwise_xor_(words).mul_(_MULTIPLIER_1)
    words = _shift_right(words, 27).bitwise_xor_(words).mul_(_MULTIPLIER_2)
    return _shift_right(words, 31).bitwise_xor_(words)


def fold(words: Sequence[int]) -> int:
    """Fold a sequence of integers into one 64-bit key, a signed integer; order matters."""
    key = 0
    for word in words:
        key = _mix_one((key + _GOLDEN) ^ word)
    return _signed(key)


def _mix_one(word: int) -> int:
    """Apply `mix` to one word: tensors of one element would take a hundred times as long."""
    word &= _MASK
    word = (word ^ word >> 30) * _MULTIPLIER_1 & _MASK
    word = (word ^ word >> 27) * _MULTIPLIER_2 & _MASK
    return word ^ word >> 31


def row_keys(key: int, first: int, count: int, device: torch.device) -> Tensor:
    """Return the keys of rows ``first ... first + count - 1``, int64 ``[count]``."""
    return keys_of(key, torch.arange(first, first + count, device=device))


def keys_of(key: int, rows: Tensor) -> Tensor:
    """Return the keys of the rows with these numbers, int64 as ``rows``: of each row alone."""
    return mix(mix(rows * _GOLDEN) ^ key)


def bits(keys: Tensor, count: int) -> Tensor:
    """Return the first ``count`` words of each key's SplitMix64 stream, int64 ``[rows, count]``."""
    steps = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
    return mix(keys[:, None] + steps)


def uniforms(keys: Tensor, count: int) -> Tensor:
    """Draw uniform numbers in the open interval (0, 1), float32 ``[rows, count]``.

    Multiples of 2^-24: 23 random bits and a half, which float32 holds exactly, so neither end
    is ever reached.
    """
    return (_shift_right(bits(keys, count), 41).float() + 0.5) * 2.0**-23


def integers(keys: Tensor, bounds: Sequence[int]) -> list[Tensor]:
    """Draw for each bound below 2^31 int64 ``[rows]`` in ``[0, bound)``, even to bound / 2^32."""
    words = _shift_right(bits(keys, len(bounds)), 32)
    return [(words[:, i] * bound) >> 32 for i, bound in enumerate(bounds)]


def normals(keys: Tensor, count: int) -> Tensor:
    """Draw standard normal numbers, float32 ``[rows, count]`` (Box and Muller, 1958)."""
    u = uniforms(keys, 2 * count)
    radius = (-2 * u[:, :count].log()).sqrt()
    return radius * (2 * math.pi * u[:, count:]).cos()


def paired_uniforms(keys: Tensor, count: int) -> Tensor:
    """Draw as `uniforms`, two numbers a word: half the work, other values than `uniforms`'."""
    halves = bits(keys, (count + 1) // 2).view(torch.int32)[:, :count]
    return (halves >> 9).bitwise_and_(0x7FFFFF).float().add_(0.5).mul_(2.0**-23)


def paired_normals(keys: Tensor, count: int) -> Tensor:
    """Draw as `normals`, two numbers from two uniform ones: a quarter of the words."""
    pairs = (count + 1) // 2
    u = paired_uniforms(keys, 2 * pairs)
    radius = u[:, :pairs].log().mul_(-2).sqrt_()
    angle = u[:, pairs:] * (2 * math.pi)
    return torch.cat((angle.cos().mul_(radius), angle.sin_().mul_(radius)), dim=1)[:, :count]


def normals_by_word(keys: Tensor, count: int) -> Tensor:
    """Draw as `normals`, two numbers of each word, so that a kernel can draw any of them alone.

    Numbers 2i and 2i + 1 are Box and Muller's (1958) pair of word i alone: its low half is the
    radius, its high half the angle; as in csrc/cpu/prime_random.h and kernels/prime_draws.py.
    """
    pairs = (count + 1) // 2
    u = paired_uniforms(keys, 2 * pairs).view(len(keys), pairs, 2)
    radius = u[..., 0].log().mul_(-2).sqrt_()
    angle = u[..., 1] * (2 * math.pi)
    both = torch.stack((angle.cos().mul_(radius), angle.sin().mul_(radius)), dim=-1)
    return both.flatten(1)[:, :count]


def _shift_right(words: Tensor, distance: int) -> Tensor:
    """Shift logically, into a fresh tensor: torch's own ``>>`` copies the sign bit."""
    return (words >> distance).bitwise_and_((1 << (64 - distance)) - 1)
