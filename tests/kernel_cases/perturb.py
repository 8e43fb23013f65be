"""Value checks of `gather_perturb`, `gather_perturb.out` and `perturb_`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.kernel_cases.accuracy import assert_as_accurate

SHAPES = {  # how 16-byte accesses meet planes and rows
    "whole": (5, 3, 8, 8),
    "across-planes": (4, 16, 3, 3),
    "odd": (6, 3, 7, 5),
    "one-channel": (3, 1, 16, 16),
    "one-pixel": (4, 33, 1, 1),
    "several-blocks": (3, 3, 64, 80),
}


@dataclass(frozen=True)
class Step:
    """The inputs of one call, on the CPU."""

    x: Tensor
    x_adv: Tensor
    grad: Tensor  # like x
    grad_adv: Tensor  # like x_adv
    index: Tensor
    bounds: tuple[Tensor, Tensor, Tensor, Tensor]


def make(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> Step:
    """Seeded images in [-0.1, 1.1], so that every clip acts; gradients with zeros and NaN."""
    generator = torch.Generator().manual_seed(sum(shape))

    def images(rows: int) -> Tensor:
        values = torch.rand((rows, *shape[1:]), generator=generator) * 1.2 - 0.1
        return values.to(dtype).contiguous(memory_format=layout)

    def gradient(rows: int) -> Tensor:
        values = torch.randint(-1, 2, (rows, *shape[1:]), generator=generator).to(dtype)
        values[0, 0, 0, 0] = torch.nan
        return values.contiguous(memory_format=layout)

    index = torch.randperm(shape[0], generator=generator)[: shape[0] - 1]
    index[0] -= shape[0]  # the same row, counted from the end
    x = images(shape[0])
    moved = x[index] + (torch.rand((len(index), *shape[1:]), generator=generator) - 0.5) / 8
    x_adv = moved.to(dtype).contiguous(memory_format=layout)
    scale = 1 + torch.arange(shape[1]) / shape[1]
    values = (scale / 16, scale / 12, -scale / 32, scale * 0.6)
    bounds = tuple(value.to(dtype) for value in values)
    return Step(x, x_adv, gradient(shape[0]), gradient(len(index)), index, bounds)  # type: ignore[arg-type]


def plain(x0: Tensor, x_adv: Tensor, grad: Tensor, bounds: tuple[Tensor, ...]) -> Tensor:
    """Compute the formula in PyTorch's own operations, in the tensors' dtype."""
    alpha, eps, lo, hi = (value[:, None, None] for value in bounds)
    moved = (x_adv - x0 + alpha * grad.sign()).clamp(-eps, eps)
    return (x0 + moved).clamp(lo, hi)


def check(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: torch.memory_format,
    offset: int,
    op: Any,
    device: str,
) -> None:
    """Compare all three; `offset` elements of misalignment forbid wide accesses."""
    step = make(shape, dtype, layout)

    def place(value: Tensor) -> Tensor:
        storage = torch.empty(value.numel() + offset, dtype=dtype, device=device)
        placed = storage[offset:].as_strided(value.shape, value.stride(), storage_offset=offset)
        return placed.copy_(value)

    x, x_adv, grad, grad_adv = map(place, (step.x, step.x_adv, step.grad, step.grad_adv))
    index = step.index.to(device)
    bounds = [value.to(device) for value in step.bounds]

    def compare(name: str, result: Tensor, x_adv: Tensor, grad: Tensor) -> None:
        x0 = step.x[step.index]
        wide = tuple(value.double() for value in step.bounds)
        truth = plain(x0.double(), x_adv.double(), grad.double(), wide)
        assert_as_accurate(name, result, plain(x0, x_adv, grad, step.bounds), truth)

    gathered = op.gather_perturb(x, grad, index, *bounds)
    assert gathered.stride() == step.x_adv.stride()
    compare("gather_perturb", gathered, step.x[step.index], step.grad[step.index])
    out = place(torch.full_like(step.x_adv, torch.nan))
    op.gather_perturb_out(x, grad, index, *bounds, out=out)
    assert torch.equal(out, gathered)
    op.perturb_(x_adv, grad_adv, x, index, *bounds)
    compare("perturb_", x_adv, step.x_adv, step.grad_adv)
    assert torch.equal(x.cpu(), step.x), "x was changed"


def check_no_rows(op: Any, device: str) -> None:
    """Check that an empty selection is an empty result of the right shape, and no launch."""
    step = make((3, 3, 4, 4), torch.float32, torch.channels_last)
    x, none = step.x.to(device), torch.empty(0, dtype=torch.int64, device=device)
    bounds = [value.to(device) for value in step.bounds]
    gathered = op.gather_perturb(x, x, none, *bounds)
    assert gathered.shape == (0, 3, 4, 4)
    assert gathered.is_contiguous(memory_format=torch.channels_last)
    op.perturb_(gathered, gathered.clone(), x, none, *bounds)


def check_strided_index(op: Any, device: str) -> None:
    """Check that the index may be a column of a table, and name a row twice."""
    step = make((5, 3, 4, 4), torch.float32, torch.contiguous_format)
    table = torch.tensor([[4, 0], [1, 0], [4, 3]], device=device)
    x, grad, *bounds = (value.to(device) for value in (step.x, step.grad, *step.bounds))
    apart = op.gather_perturb(x, grad, table[:, 0], *bounds)
    assert torch.equal(apart, op.gather_perturb(x, grad, table[:, 0].contiguous(), *bounds))
    assert torch.equal(apart[0], apart[2]) and not torch.equal(apart[0], apart[1])


def check_special_values(op: Any, device: str) -> None:
    """NaN and infinite images, and a NaN bound, are treated as torch.clamp does."""
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.5] * 2).reshape(1, 2, 2, 2)
    grad = torch.ones_like(x)
    bounds = [torch.full((2,), v) for v in (0.1, 0.1, 0.0, 1.0)]
    bounds[3][1] = torch.nan
    index = torch.tensor([0])
    on_device = [value.to(device) for value in (x, grad, index, *bounds)]
    alpha, _, lo, hi = (value[:, None, None] for value in bounds)
    expected = (x + alpha).clamp(lo, hi)
    torch.testing.assert_close(op.gather_perturb(*on_device).cpu(), expected, equal_nan=True)


CASES: dict[str, Callable[[Any, str], None]] = {
    f"{kind}-{suffix}-{dtype}-offset{offset}".replace("torch.", ""): partial(
        check, shape, dtype, layout, offset
    )
    for kind, shape in SHAPES.items()
    for suffix, layout in (
        ("channels_last", torch.channels_last),
        ("contiguous", torch.contiguous_format),
    )
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    for offset in ((0, 1) if dtype == torch.bfloat16 else (0,))
}
CASES |= {
    "no-rows": check_no_rows,
    "strided-index": check_strided_index,
    "special-values": check_special_values,
}
