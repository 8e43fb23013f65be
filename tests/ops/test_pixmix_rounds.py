"""pixmix_rounds against NumPy in float64: odd sizes, dark levels, rows that keep their image."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from entprop_fast.ops.pixmix_rounds import Mixing


def described(
    image: NDArray[Any], pool: NDArray[Any], number: list[int], codes: list[int], weights: Any
) -> NDArray[np.float64]:
    """Mix one image as the published code does; it is in [0, 1], the pool's rows are levels."""
    mixed = image if number[0] < 0 else pool[number[0]] / 255
    for row, code, (a, b) in zip(number[1:], codes, weights, strict=True):
        other = pool[row] / 255
        if code == Mixing.MULTIPLY:
            mixed = (2 * mixed) ** a * np.clip(2 * other, 1e-37, None) ** b / 2
        elif code == Mixing.ADD:
            mixed = (a * (2 * mixed - 1) + b * (2 * other - 1) + 1) / 2
        mixed = np.clip(mixed, 0, 1)
    return mixed


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("values", [1, 17, 48, 2048, 4099])
def test_values(ops: Any, dtype: torch.dtype, values: int) -> None:
    generator = torch.Generator().manual_seed(values)
    count, rounds = 12, 4
    pool = torch.randint(256, (6, values), generator=generator, dtype=torch.uint8)
    pool[0], pool[1, ::2] = 0, 255  # what is dark is raised to negative powers too
    images = pool[torch.randint(6, (count,), generator=generator)]
    images = images if dtype == torch.uint8 else images.to(dtype) / 255
    number = torch.randint(6, (count, rounds + 1), generator=generator)
    number[::2, 0] = -1
    codes = torch.randint(4, (count, rounds), generator=generator).to(torch.uint8)
    weights = torch.rand(count, rounds, 2, generator=generator) * 2
    weights[..., 1] -= 1
    found = ops.pixmix_rounds(images, pool, number, codes, weights)
    assert found.dtype == dtype
    given = images.double().numpy() / (255 if dtype == torch.uint8 else 1)
    for i in range(count):
        program = number[i].tolist(), codes[i].tolist(), weights[i].double().numpy()
        expected = described(given[i], pool.double().numpy(), *program)
        got = found[i].double().numpy() / (255 if dtype == torch.uint8 else 1)
        error = np.abs(got - expected).max() * 255
        assert error < (0.501 if dtype == torch.uint8 else 2e-3), (i, program)
