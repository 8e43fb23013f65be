"""Each primitive of PRIME against a description, from the same draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor

from entprop_fast.counter_random import normals_by_word
from entprop_fast.ops.prime_chains import OP, REFERENCE_OP, Primitive
from tests.augment import prime_description as described

Op: TypeAlias = Callable[..., Tensor]
SIZES = [(7, 5), (6, 9), (1, 4), (2, 2), (3, 3)]


@pytest.fixture(params=["kernel", "reference"])
def op(request: pytest.FixtureRequest) -> Op:
    return OP if request.param == "kernel" else REFERENCE_OP


def one(op: Op, image: Tensor, kind: Primitive, band: tuple[int, int], scale: float) -> Tensor:
    """Apply one primitive, drawn by key 77."""
    program = (len(image), 1, 1)
    ones, zeros = torch.ones(program[:2]), torch.zeros(program[0])
    codes = torch.full(program, int(kind), dtype=torch.uint8)
    bands = torch.tensor(band, dtype=torch.int32).expand(*program, 2).contiguous()
    keys, amounts = torch.full(program, 77), torch.full(program, scale)
    return op(image, codes, keys, bands, amounts, ones, zeros, band[1], 3)


def normals(count: int) -> described.Array:
    drawn: described.Array = normals_by_word(torch.tensor([77]), count)[0].double().numpy()
    return drawn


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cut", [2, 11])
def test_warp_is_the_sum_of_all_modes(op: Op, size: tuple[int, int], cut: int) -> None:
    image = torch.rand(1, 3, *size)
    modes = [max(n - 2, 0) for n in size]
    drawn = normals(2 * modes[0] * modes[1]).reshape(*modes, 2).transpose(2, 0, 1)
    fields = described.displacements(drawn, cut, 0.05, *size)
    expected = described.warp(image[0].double().numpy(), *fields)
    result = one(op, image, Primitive.WARP, (1, cut), 0.05)[0]
    assert np.abs(result.numpy() - expected).max() < 3e-5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("band", [(1, 100), (1, 1), (13, 32), (481, 500)])
@pytest.mark.parametrize("levels", [True, False])
def test_color_is_a_sum_of_sines(
    op: Op, channels: int, band: tuple[int, int], levels: bool
) -> None:
    image = torch.rand(1, channels, 7, 37)
    image[0, 0, 0, :5] = torch.tensor([0.0, 1.0, 1e-4, 1 - 1e-4, 0.5])
    if levels:
        image = (image * 255).round().to(torch.uint8)
    drawn = normals(3 * band[1]).reshape(-1, 3).T[:channels] * 0.1
    drawn[:, : band[0] - 1] = 0
    exact = image[0].double().numpy() / (255 if levels else 1)
    expected = described.color(exact, drawn)
    result = one(op, image, Primitive.COLOR, band, 0.1)[0]
    if levels:
        assert np.abs(result.numpy() - expected * 255).max() < 0.51
    else:
        assert np.abs(result.numpy() - expected).max() < 2e-4


@pytest.mark.parametrize("size", SIZES)
def test_filter_is_a_correlation(op: Op, size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    kernel = normals(9).reshape(3, 3) * 0.7
    kernel[2, 2] += 1  # utils/rand_filter.py: ceil(3 / 2)
    expected = described.filtered(image[0].double().numpy(), kernel)
    result = one(op, image, Primitive.FILTER, (1, 1), 0.7)[0]
    assert np.abs(result.numpy() - expected).max() < 1e-5


def test_normals_are_standard_and_each_drawn_alone() -> None:
    keys = torch.tensor([3, -8])
    assert torch.equal(normals_by_word(keys, 4), normals_by_word(keys, 5)[:, :4])
    many = normals_by_word(torch.arange(400), 101).double().flatten()
    assert many.mean().abs() < 0.02
    assert abs(many.std() - 1) < 0.02
    assert abs(many.pow(4).mean() - 3) < 0.15
