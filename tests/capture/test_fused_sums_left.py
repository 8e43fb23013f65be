"""Gradients that recorded passes leave to autograd: of other dtypes, functions and passes."""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from entprop_fast.capture import fused_sums
from tests.capture.test_fused_sums import ALL, WEIGHTS, passes
from tests.methods import support as s

LATER = 3  # backward passes that add to an earlier one
Use = Callable[[Tensor, Tensor], Tensor]


class _Named(torch.autograd.Function):
    """Says a name and a variable of its own; its gradient is not that of its result."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.name, ctx.variable = "ToCopyBackward0", weight
        return weight.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 3 * gradient


class Layer(nn.Module):
    """A convolution of 1x1 whose weight is used in a way of its own."""

    def __init__(self, use: Use, dtype: torch.dtype) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(64, 4, 1, 1, generator=source).to(dtype))
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.use(x, self.weight).unflatten(1, (4, -1))
        return found.mean(2)


def exact(x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return F.conv2d(x.double(), weight.double()).float()


def full(x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return F.conv2d(x.float(), weight.float())


def imaginary(x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        found = F.conv2d(x.float().to(torch.complex64), weight.to(torch.complex64) * (1 + 1j))
        return found.real + found.imag


def named(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, _Named.apply(weight))  # type: ignore[no-untyped-call]


def with_its_gradient(x: Tensor, weight: Tensor) -> Tensor:
    """Takes a gradient in the forward, through a cast that an earlier pass may have made."""
    found = F.conv2d(x, weight)
    (gradient,) = torch.autograd.grad(found.float().square().mean(), weight, retain_graph=True)
    return found - gradient.mean()


def in_a_checkpoint(x: Tensor, weight: Tensor) -> Tensor:
    """Goes back through a cast within the pass that goes through it, too."""
    found = F.conv2d(x, weight)
    again: Tensor = checkpoint(partial(F.conv2d, weight=weight), x, use_reentrant=True)
    return found + again


LEFT: list[tuple[Use, torch.dtype, int]] = [
    (exact, torch.float32, 0),
    (full, torch.bfloat16, 0),
    (imaginary, torch.float32, 0),
    (named, torch.float32, 0),
    (with_its_gradient, torch.float32, LATER),
    (in_a_checkpoint, torch.float32, LATER + 1),  # in the first pass to what the checkpoint left
]


def put(use: Use, dtype: torch.dtype, model: nn.Sequential) -> None:
    model.relu1 = nn.Sequential(nn.ReLU(), Layer(use, dtype))


@pytest.mark.parametrize(("use", "dtype", "fused"), LEFT)
def test_left_to_autograd(use: Use, dtype: torch.dtype, fused: int) -> None:
    change = partial(put, use, dtype)
    found, sums = passes("entprop", change, k=0.5, **ALL)
    s.assert_equal(found, passes("entprop", change, k=0.5, fused=False, **ALL)[0])
    assert sums["fused"] == LATER * WEIGHTS + fused


def test_a_sparse_sum() -> None:
    """An embedding's, to which a later pass adds a dense gradient."""
    weight = nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.tensor([[0, 0], [1.0, 2.0], [0, 0]]).to_sparse(1)
    loss = (weight.to(torch.bfloat16) * 2).sum()
    fused_sums.fuse_sums(loss)
    loss.backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad.to_dense(), torch.tensor([[2.0, 2], [3, 4], [2, 2]]))


def test_nothing_is_left_of_a_pass() -> None:
    gc.collect()
    gc.disable()
    try:
        passes("entprop", **ALL)
        kept = [one for one in gc.get_objects() if type(one) in (fused_sums._Sums, fused_sums._Add)]
    finally:
        gc.enable()
    assert not kept
