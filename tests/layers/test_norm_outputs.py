"""`outputs` of a dual batch norm: the bits of its forward with the sums around it outside."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import convert_dual_norm, route, synchronise_norms
from entprop_fast.layers import synchronised
from entprop_fast.layers.synchronised_norm import synchronised_batch_norm
from tests.layers.oracle import randomize
from tests.processes import group_of_one

C, ROWS = 5, 6
SHAPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "1d": (nn.BatchNorm1d, (ROWS, C)),
    "2d": (nn.BatchNorm2d, (ROWS, C, 3, 4)),
    "3d": (nn.BatchNorm3d, (ROWS, C, 2, 3, 2)),
    "synchronised": (nn.SyncBatchNorm, (ROWS, C, 3, 4)),
}
KINDS = ("defaults", "cumulative", "a hook of the half")
ASKED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "addend": {"addend": True},
    "twice": {"twice": True, "relu": True},
    "all": {"addend": True, "residual": True, "relu": True, "twice": True},
}


def norm_of(plain: Any, kind: str) -> Any:
    norm: Any = convert_dual_norm(plain(C, momentum=None if kind == "cumulative" else 0.3))
    randomize(norm)
    if kind == "a hook of the half":
        norm.aux_bn.register_forward_hook(_double)
    return norm


def _double(_: nn.Module, given: Any, y: Tensor) -> Tensor:
    return 2 * y


def tensors(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Return leaves: the input, what is added before the norm, and after it."""
    generator = torch.Generator().manual_seed(3)
    made = (torch.randn(shape, generator=generator).requires_grad_() for _ in range(3))
    return dict(zip(("x", "addend", "residual"), made, strict=True))


def after(norm: Any, leaves: dict[str, Tensor], outputs: tuple[Tensor, ...]) -> list[Tensor | None]:
    """Return the outputs, the gradients of all that they were made of, and what has moved."""
    y, again, total = outputs
    weights = torch.linspace(-1, 1, y.numel()).view(y.shape)
    (y * weights + again * weights.flip(0) + total).sum().backward()
    grads = [t.grad for t in (*leaves.values(), *norm.parameters())]
    return [y.detach(), again.detach(), total.detach(), *grads, *norm.buffers()]


def assert_same(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def by_outputs(norm: Any, shape: tuple[int, ...], asked: dict[str, Any]) -> list[Tensor | None]:
    leaves = tensors(shape)
    given = {k: leaves[k] if k in leaves else v for k, v in asked.items()}
    return after(norm, leaves, norm.outputs(leaves["x"], **given))


def by_forward(norm: Any, shape: tuple[int, ...], asked: dict[str, Any]) -> list[Tensor | None]:
    leaves = tensors(shape)
    total = leaves["x"] + leaves["addend"] if "addend" in asked else leaves["x"]
    residual = leaves["residual"] if "residual" in asked else None
    y = norm(total, residual, relu="relu" in asked)
    return after(norm, leaves, (y, y, total))


@pytest.mark.parametrize("target", ["main", 4, "aux"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize(("plain", "shape"), SHAPES.values(), ids=SHAPES)
def test_bits_of_the_forward(
    plain: Any, shape: tuple[int, ...], asked: dict[str, Any], kind: str, target: Any
) -> None:
    norm = norm_of(plain, kind)
    twin = copy.deepcopy(norm)
    with route(norm, target), route(twin, target):
        assert_same(by_outputs(norm, shape, asked), by_forward(twin, shape, asked))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_the_rows_of_all_processes_count(
    asked: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is told of another asks for its rows, whatever else it is to compute."""
    calls = []

    def counting(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(args)
        return synchronised_batch_norm(*args, **kwargs)

    monkeypatch.setattr(synchronised, "processes", lambda group: 2)
    monkeypatch.setattr(synchronised, "synchronised_batch_norm", counting)
    shape = (ROWS, C, 3, 4)
    norm = synchronise_norms(norm_of(nn.BatchNorm2d, kind))
    twin = copy.deepcopy(norm)
    with group_of_one(), route(norm, 4), route(twin, 4):
        found = by_outputs(norm, shape, asked)
        assert calls
        assert_same(found, by_forward(twin, shape, asked))
