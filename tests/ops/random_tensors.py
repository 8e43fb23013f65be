"""Random tensors: sizes, dtypes, layouts.

The same seed makes the same ones again, views of one memory included.
"""

import random
from typing import Any, TypeAlias

import torch
from torch import Tensor

Arguments: TypeAlias = dict[str, Any]
DTYPES = (torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16)


def tensor(draw: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Numbers of this shape in some layout: dense, strided, expanded, at an odd offset."""
    numbers = torch.tensor([draw.gauss(0, 1) for _ in range(max(1, torch.Size(shape).numel()))])
    x = numbers[: torch.Size(shape).numel()].reshape(shape).to(dtype)
    kind = draw.choice(("contiguous", "contiguous", "last", "offset", "step", "turned", "expanded"))
    if kind == "last" and len(shape) == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if kind == "offset":
        return torch.cat([x.new_zeros(3), x.flatten()])[3:].view(shape)
    if kind == "step" and shape:
        return torch.stack([x, x + 1], -1)[..., 0]
    if kind == "turned":
        return (
            x.permute(*reversed(range(len(shape))))
            .contiguous()
            .permute(*reversed(range(len(shape))))
        )
    if kind == "expanded" and shape and x.numel():
        return x.narrow(draw.randrange(len(shape)), 0, 1).expand(shape)
    return x


def image_shape(draw: random.Random) -> tuple[int, ...]:
    """[N, C, ...] from no rows to a few thousand numbers."""
    channels = draw.choice((1, 2, 3, 5, 8, 16, 17, 33, 64))
    pixels: tuple[int, ...] = (draw.choice((1, 2, 3, 7, 8)), draw.choice((1, 2, 5, 8, 17)))
    pixels = draw.choice((pixels, pixels, pixels, (), pixels[:1]))
    return (draw.choice((0, 1, 2, 3, 4, 6)), channels, *pixels)


def index(draw: random.Random, length: int, below: int, outside: float = 0.05) -> Tensor:
    """Row numbers, in some layout, now and then one that is no row."""
    rows = [draw.randrange(max(below, 1)) for _ in range(length)]
    if rows and draw.random() < outside:
        rows[draw.randrange(length)] = draw.choice((-1, below, -below - 1, 2**40, -(2**62)))
    value = torch.tensor(rows, dtype=torch.int64)
    return torch.stack([value, value], 1)[:, 1] if draw.random() < 0.3 else value


def own_memory(value: Tensor) -> Tensor:
    """`value` where no two of its elements lie in one place."""
    return value.clone() if 0 in value.stride() else value
