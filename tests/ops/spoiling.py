"""Arguments made wrong: one tensor of another size, dtype, device or memory; one number beyond."""

import random
from typing import Any

import torch
from torch import Tensor

from tests.ops.arguments import WRITTEN
from tests.ops.random_tensors import Arguments


def _fewer(value: Tensor, at: int) -> Tensor:
    return value.narrow(at, 0, value.shape[at] - 1) if value.shape[at] else _more(value, at)


def _more(value: Tensor, at: int) -> Tensor:
    shape = list(value.shape)
    shape[at] = 1
    return torch.cat([value, value.new_zeros(shape)], at)


def spoiled_tensor(draw: random.Random, value: Tensor) -> Tensor:
    """`value` with another shape, dtype or device."""
    kinds = ["more dimensions", "no dimension", "empty", "dtype", "integers", "meta"]
    if value.dim():
        kinds += ["fewer", "more", "flat", "fewer", "more"]
    kind = draw.choice(kinds)
    if kind in ("fewer", "more"):
        return (_fewer if kind == "fewer" else _more)(value, draw.randrange(value.dim()))
    if kind == "more dimensions":
        return value.unsqueeze(draw.randint(0, value.dim()))
    if kind == "no dimension":
        return value.new_zeros(())
    if kind == "empty":
        return value.new_zeros(0)
    if kind == "flat":
        return value.flatten()
    if kind == "meta":
        return value.to("meta")
    other = torch.int32 if kind == "integers" else torch.float64
    if value.dtype == other:
        other = torch.float32
    return value.to(other)


def spoiled_number(draw: random.Random, value: Any) -> Any:
    """Return a number, name or list of flags beyond what any op takes."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return draw.choice((-1, -(2**31), value + 1000, 2**40))
    if isinstance(value, float):
        return draw.choice((-0.5, -1e-9, 1.5, 0.0))
    return value[:-1]


def overlapping(draw: random.Random, name: str, arguments: Arguments) -> Arguments:
    """Return what the op writes in the memory of another argument, or twice in one place."""
    written = [n for n in WRITTEN.get(name, ()) if arguments.get(n) is not None]
    if not written:
        return arguments
    target = draw.choice(written)
    value = arguments[target]
    others = [
        n
        for n, other in arguments.items()
        if isinstance(other, Tensor) and n != target and other.dtype == value.dtype
    ]
    kind = draw.choice(("itself", "columns", *["other"] * 3))
    if kind == "itself" and value.numel() and value.dim():
        at = draw.randrange(value.dim())
        return arguments | {target: value.narrow(at, 0, 1).clone().expand(value.shape)}
    if kind == "columns" and others:  # of one table: nothing is shared
        other = draw.choice(others)
        if arguments[other].shape == value.shape:
            table = torch.stack([value, arguments[other]], -1)
            return arguments | {target: table[..., 0], other: table[..., 1]}
    if kind == "other" and others:
        # One of them as a view of the other, from a few elements on.
        other = draw.choice(others)
        big, small = arguments[other], value
        start = draw.randrange(4)
        memory = torch.cat([big.flatten(), big.new_ones(small.numel() + start)])
        first = memory[: big.numel()].view(big.shape)
        second = memory[start : start + small.numel()].view(small.shape)
        return arguments | {other: first, target: second}
    return arguments


def spoiled(draw: random.Random, name: str, arguments: Arguments) -> Arguments:
    """Return the arguments as they are, one of them spoiled, or two in one memory."""
    kind = draw.random()
    if kind < 0.35:
        return arguments
    if kind < 0.55:
        return overlapping(draw, name, arguments)
    tensors = [n for n, value in arguments.items() if isinstance(value, Tensor)]
    numbers = [n for n, value in arguments.items() if isinstance(value, (int, float, str, list))]
    if kind < 0.9 or not numbers:
        chosen = draw.choice(tensors)
        return arguments | {chosen: spoiled_tensor(draw, arguments[chosen])}
    chosen = draw.choice(numbers)
    return arguments | {chosen: spoiled_number(draw, arguments[chosen])}
