"""Check draws from counters against the published generator, and against distributions."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from entprop_fast.lab.data.counter_random import (
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


def test_keys_are_those_of_the_rows_numbers() -> None:
    rows = torch.tensor([[5, 0], [99, 5]])
    assert torch.equal(keys_of(7, rows), row_keys(7, 0, 100, CPU)[rows])
    assert not torch.equal(keys_of(8, rows), keys_of(7, rows))


@given(st.integers(-(2**63), 2**63 - 1), st.lists(st.integers(1, 2**31 - 1), min_size=1))
def test_integers_are_the_high_halves_scaled(key: int, bounds: list[int]) -> None:
    drawn = [int(one) for one in integers(torch.tensor([key]), bounds)]
    words = splitmix64(key % WORD, len(bounds))
    assert drawn == [(word >> 32) * bound >> 32 for word, bound in zip(words, bounds, strict=True)]
    assert all(0 <= one < bound for one, bound in zip(drawn, bounds, strict=True))


def test_uniforms_are_uniform_open_and_independent() -> None:
    draws = uniforms(row_keys(3, 0, 1000, CPU), 1000).double().numpy()
    assert draws.dtype == np.float64
    assert 0 < draws.min() and draws.max() < 1
    counts = np.histogram(draws, bins=50, range=(0, 1))[0]
    # Chi squared with 49 degrees of freedom: 99.9 % lie below 85.4.
    assert ((counts - 20_000) ** 2 / 20_000).sum() < 85.4
    # A million pairs: a correlation of 0.005 is five standard errors.
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.005
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.005


def assert_normal_moments(draws: torch.Tensor) -> None:
    """Of a million draws."""
    moments = [draws.pow(power).mean().item() for power in (1, 2, 3, 4)]
    # Five standard errors of a million draws; E z^2k is 1, 3, 15, 105 for k = 1 ... 4.
    for moment, truth, variance in zip(moments, (0, 1, 0, 3), (1, 2, 15, 96), strict=True):
        assert abs(moment - truth) < 5 * (variance / 1e6) ** 0.5
    assert draws.abs().max() < 6


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 9))
def test_packed_uniforms_are_the_words_halves(key: int, count: int) -> None:
    halves = [
        half
        for word in splitmix64(key % WORD, (count + 1) // 2)
        for half in (word % 2**32, word >> 32)
    ]
    truth = [((half >> 9) + 0.5) * 2.0**-23 for half in halves[:count]]
    drawn = paired_uniforms(torch.tensor([key]), count)
    assert drawn[0].tolist() == truth and all(0 < one < 1 for one in truth)


def test_packed_normals_are_box_and_mullers_of_packed_uniforms() -> None:
    keys = row_keys(5, 0, 1000, CPU)
    for count in (1, 7, 1000):
        pairs = (count + 1) // 2
        u = paired_uniforms(keys, 2 * pairs).double().numpy()
        radius, angle = np.sqrt(-2 * np.log(u[:, :pairs])), 2 * np.pi * u[:, pairs:]
        truth = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
        drawn = paired_normals(keys, count).double()
        np.testing.assert_allclose(drawn.numpy(), truth[:, :count], atol=1e-5)
    for made in (drawn, normals(row_keys(5, 0, 1000, CPU), 1000).double()):
        assert_normal_moments(made)
    assert abs(np.corrcoef(drawn[:, :500].flatten(), drawn[:, 500:].flatten())[0, 1]) < 0.008
