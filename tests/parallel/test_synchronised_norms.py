"""Batch norms over two processes: those of the whole batch in one, with two collectives each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, distributed, nn

from entprop_fast import convert_dual_norm, route, synchronise_norms
from tests.layers import oracle

CHANNELS = 3


class Case(NamedTuple):
    """Rows of both halves in each process, and how they are normalised."""

    main: tuple[int, int] = (3, 3)
    aux: tuple[int, int] = (2, 2)
    pixels: tuple[int, ...] = (4, 5)
    channels_last: bool = False
    residual: bool = False
    relu: bool = False
    training: tuple[bool, bool] = (True, True)
    frozen: bool = False  # statistics
    momentum: float | None = 0.1
    affine: bool = True
    tracks: bool = True
    mean: float = 0.0


CASES = {
    "equal": Case(),
    "unequal": Case((4, 1), (2, 5)),
    "aux empty here": Case((3, 2), (4, 0)),
    "main empty here": Case((0, 2), (1, 3)),
    "aux empty everywhere": Case((3, 2), (0, 0)),
    "main empty everywhere": Case((0, 0), (1, 2)),
    "nothing here": Case((0, 3), (0, 2)),
    "a value each": Case((1, 1), (1, 1), pixels=(1, 1)),
    "channels_last": Case((3, 2), (1, 2), channels_last=True, residual=True, relu=True),
    "residual": Case((3, 2), (1, 2), residual=True),
    "residual, relu": Case((3, 2), (1, 2), residual=True, relu=True),
    "relu": Case((3, 2), (1, 2), relu=True),
    "1d": Case((3, 2), (1, 2), pixels=()),
    "1d, length": Case((3, 2), (1, 2), pixels=(7,), relu=True),
    "3d": Case((3, 2), (1, 2), pixels=(2, 3, 2), residual=True, relu=True),
    "aux in eval": Case((3, 2), (1, 2), training=(True, False)),
    "main in eval": Case((3, 2), (1, 2), training=(False, True), relu=True),
    "frozen statistics": Case((3, 2), (1, 2), frozen=True),
    "cumulative": Case((3, 2), (1, 2), momentum=None),
    "not affine": Case((3, 2), (1, 2), affine=False),
    "tracks nothing": Case((3, 2), (1, 2), tracks=False),
    "far from zero": Case((3, 2), (1, 2), mean=1e3),
}


def norm_of(case: Case) -> Any:
    kinds = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    torch.manual_seed(1)
    plain: Any = kinds[len(case.pixels)](
        CHANNELS, momentum=case.momentum, affine=case.affine, track_running_stats=case.tracks
    )
    norm: Any = convert_dual_norm(plain.double())
    oracle.randomize(norm)
    norm.train(case.training[0])
    norm.aux_bn.train(case.training[1])
    return norm


def inputs_of(case: Case) -> list[Tensor]:
    """Input, residual and the loss's weights of all rows: main of each rank, then auxiliary."""
    generator = torch.Generator().manual_seed(2)
    rows = sum(case.main) + sum(case.aux)
    shape = (rows, CHANNELS, *case.pixels)
    found = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]
    return [found[0] + case.mean, *found[1:]]


def own_rows(case: Case, value: Tensor, rank: int) -> Tensor:
    parts = value.split([*case.main, *case.aux])
    own = torch.cat([parts[rank], parts[2 + rank]])
    return own.contiguous(memory_format=torch.channels_last) if case.channels_last else own


def run(norm: Any, case: Case, inputs: list[Tensor], num_main: int) -> dict[str, Tensor]:
    x, residual, weights = inputs
    x.requires_grad_()
    residual.requires_grad_(case.residual)
    held = [norm, norm.aux_bn] if case.frozen else []
    from entprop_fast.layers.routing import frozen_statistics

    with route(norm, num_main), frozen_statistics(held):
        y = norm(x, residual if case.residual else None, relu=case.relu)
    (y * weights).sum().backward()
    found = {"y": y.detach(), "dx": x.grad}
    if case.residual:
        found["dresidual"] = residual.grad
    return found


def gradients(norm: Any) -> dict[str, Tensor]:
    named = norm.named_parameters()
    return {k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in named}


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """Names of the collectives that run."""
    names = ("all_gather_into_tensor", "all_gather_single", "all_reduce", "all_gather", "broadcast")
    before = {name: getattr(distributed, name) for name in names if hasattr(distributed, name)}
    calls: list[str] = []

    def counting(name: str, collective: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return collective(*args, **kwargs)

        return call

    for name, collective in before.items():
        setattr(distributed, name, counting(name, collective))
    try:
        yield calls
    finally:
        for name, collective in before.items():
            setattr(distributed, name, collective)


def run_rank(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        norm = synchronise_norms(norm_of(case))
        own = [own_rows(case, value, rank) for value in inputs_of(case)]
        with counted() as calls:
            results = run(norm, case, own, case.main[rank])
        found[name] = {
            "results": results,
            "gradients": gradients(norm),
            "state": dict(norm.state_dict()),
            "calls": len(calls),
        }
    return found


@pytest.mark.parametrize("name", CASES)
def test_is_the_norm_of_the_whole_batch(name: str, ranks: list[dict[str, Any]]) -> None:
    case = CASES[name]
    norm = norm_of(case)
    whole = run(norm, case, inputs_of(case), sum(case.main))
    tolerance = {"rtol": 1e-12, "atol": 1e-12 * max(1, case.mean)}
    for rank, found in enumerate(ranks):
        for key, value in whole.items():
            own = own_rows(case, value, rank)
            torch.testing.assert_close(found[name]["results"][key], own, **tolerance)
        for key, value in norm.state_dict().items():
            torch.testing.assert_close(found[name]["state"][key], value, **tolerance)
    for key, value in gradients(norm).items():
        total = sum(found[name]["gradients"][key] for found in ranks)
        torch.testing.assert_close(total, value, **tolerance)


@pytest.mark.parametrize("name", CASES)
def test_a_collective_forward_and_one_backward(name: str, ranks: list[dict[str, Any]]) -> None:
    assert [found[name]["calls"] for found in ranks] == [2, 2]
