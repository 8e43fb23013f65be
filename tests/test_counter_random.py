"""Check draws from counters against the published generator, in Python's integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from entprop_fast.counter_random import (
    bits,
    fold,
    integers,
    keys_of,
    mix,
    normals,
    paired_normals,
    paired_uniforms,
    row_keys,
    uniforms,
)

WORD = 1 << 64
CPU = torch.device("cpu")
Array = NDArray[np.float64]


def splitmix64(state: int, count: int) -> list[int]:
    """Vigna's C code, with Python's integers."""
    words = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % WORD
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
        words.append(z ^ (z >> 31))
    return words


def test_published_vector() -> None:
    words = [int(word) % WORD for word in bits(torch.tensor([1234567]), 3)[0]]
    assert words == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert len(mix(torch.arange(-50_000, 50_000)).unique()) == 100_000  # no collisions


@given(st.integers(-(2**63), 2**63 - 1))
def test_stream_is_splitmix64(seed: int) -> None:
    words = [int(word) % WORD for word in bits(torch.tensor([seed]), 5)[0]]
    assert words == splitmix64(seed % WORD, 5)


def test_fold_depends_on_every_word_and_their_order() -> None:
    keys = {fold(words) for words in [(0,), (0, 0), (1, 0), (0, 1), (2, 3), (3, 2), (2**63,), ()]}
    assert len(keys) == 8
    assert fold((-1,)) == fold((2**64 - 1,))


def test_a_row_keeps_its_draws_wherever_it_stands() -> None:
    together = uniforms(row_keys(7, 0, 100, CPU), 9)
    apart = [uniforms(row_keys(7, row, 1, CPU), 9) for row in range(100)]
    assert torch.equal(together, torch.cat(apart))
    assert torch.equal(together[:, :4], uniforms(row_keys(7, 0, 100, CPU), 4))


def test_keys_are_two_rounds_of_the_finaliser() -> None:
    """A round is a stream's first word, from one step before."""

    def round_of(word: int) -> int:
        return splitmix64((word - 0x9E3779B97F4A7C15) % WORD, 1)[0]

    rows = torch.tensor([[5, 0], [99, 5]])
    for key in (7, -8):
        drawn = keys_of(key, rows)
        for row, made in zip(rows.flatten().tolist(), drawn.flatten().tolist(), strict=True):
            assert made % WORD == round_of(round_of(row * 0x9E3779B97F4A7C15 % WORD) ^ key % WORD)
        assert torch.equal(drawn, row_keys(key, 0, 100, CPU)[rows])


@given(st.integers(-(2**63), 2**63 - 1), st.lists(st.integers(1, 2**31 - 1), min_size=1))
def test_integers_are_the_high_halves_scaled(key: int, bounds: list[int]) -> None:
    drawn = [int(one) for one in integers(torch.tensor([key]), bounds)]
    words = splitmix64(key % WORD, len(bounds))
    assert drawn == [(word >> 32) * bound >> 32 for word, bound in zip(words, bounds, strict=True)]
    assert all(0 <= one < bound for one, bound in zip(drawn, bounds, strict=True))


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 9))
def test_uniforms_are_bits_of_the_words(key: int, count: int) -> None:
    """From their upper 23 bits, or, in pairs, from those of both halves."""
    words = splitmix64(key % WORD, count)
    assert uniforms(torch.tensor([key]), count)[0].tolist() == [
        ((word >> 41) + 0.5) * 2.0**-23 for word in words
    ]
    halves = [half for word in words for half in (word % 2**32, word >> 32)]
    truth = [((half >> 9) + 0.5) * 2.0**-23 for half in halves[:count]]
    drawn = paired_uniforms(torch.tensor([key]), count)
    assert drawn[0].tolist() == truth and all(0 < one < 1 for one in truth)


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_normals_are_box_and_mullers_of_uniforms(count: int) -> None:
    keys, pairs = row_keys(5, 0, 1000, CPU), (count + 1) // 2

    def truth(u: Array, half: int) -> Array:
        radius, angle = np.sqrt(-2 * np.log(u[:, :half])), 2 * np.pi * u[:, half:]
        both = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
        return np.asarray(both[:, :count])

    for made, wanted in (
        (normals(keys, count), truth(uniforms(keys, 2 * count).double().numpy(), count)),
        (
            paired_normals(keys, count),
            truth(paired_uniforms(keys, 2 * pairs).double().numpy(), pairs),
        ),
    ):
        np.testing.assert_allclose(made.double().numpy(), wanted, atol=1e-5)
