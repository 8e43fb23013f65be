"""Batch norms over two processes: those of the whole batch in one, with two collectives each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from entprop_fast import convert_dual_norm, route, synchronise_norms
from entprop_fast.layers.routing import frozen_statistics
from tests.layers import oracle
from tests.ops.checks import assert_no_worse

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
    dtype: torch.dtype = torch.float64
    parameters: torch.dtype | None = None


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


NARROW = {
    "float32": Case((3, 2), (1, 2), dtype=torch.float32, relu=True),
    "float32, far from zero": Case((4, 3), (5, 2), mean=1e3, dtype=torch.float32),
    "bfloat16": Case((3, 2), (1, 2), dtype=torch.bfloat16, residual=True, relu=True),
    "bfloat16, parameters in float32": Case(
        (3, 2), (1, 2), dtype=torch.bfloat16, parameters=torch.float32, channels_last=True
    ),
}


def norm_of(case: Case) -> Any:
    kinds = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    torch.manual_seed(1)
    plain: Any = kinds[len(case.pixels)](
        CHANNELS, momentum=case.momentum, affine=case.affine, track_running_stats=case.tracks
    )
    norm: Any = convert_dual_norm(plain.double())
    oracle.randomize(norm)
    norm.to(case.parameters or case.dtype)
    norm.train(case.training[0])
    norm.aux_bn.train(case.training[1])
    return norm


def inputs_of(case: Case) -> list[Tensor]:
    """Input, residual and the loss's weights of all rows: main of each rank, then auxiliary."""
    generator = torch.Generator().manual_seed(2)
    rows = sum(case.main) + sum(case.aux)
    shape = (rows, CHANNELS, *case.pixels)
    found = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]
    return [value.to(case.dtype) for value in (found[0] + case.mean, *found[1:])]


def own_rows(case: Case, value: Tensor, rank: int) -> Tensor:
    parts = value.split([*case.main, *case.aux])
    own = torch.cat([parts[rank], parts[2 + rank]])
    return own.contiguous(memory_format=torch.channels_last) if case.channels_last else own


def run(norm: Any, case: Case, inputs: list[Tensor], num_main: int) -> dict[str, Tensor]:
    x, residual, weights = (value.clone() for value in inputs)
    x.requires_grad_()
    residual.requires_grad_(case.residual)
    held = [norm, norm.aux_bn] if case.frozen else []
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
def counted() -> Iterator[list[Any]]:
    """The groups of the collectives that run."""
    names = ("all_gather_into_tensor", "all_gather_single", "all_reduce", "all_gather", "broadcast")
    before = {name: getattr(distributed, name) for name in names if hasattr(distributed, name)}
    calls: list[Any] = []

    def counting(collective: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(kwargs.get("group"))
            return collective(*args, **kwargs)

        return call

    for name, collective in before.items():
        setattr(distributed, name, counting(collective))
    try:
        yield calls
    finally:
        for name, collective in before.items():
            setattr(distributed, name, collective)


def run_rank(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, case in (CASES | NARROW).items():
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
    return found | {work.__name__: work(rank) for work in (single_value, quiet, networks)}


def single_value(rank: int) -> dict[str, Any]:
    """What a norm says of one value a channel in all processes, and what it has changed then."""
    norm: Any = synchronise_norms(nn.BatchNorm2d(CHANNELS))
    with pytest.raises(ValueError, match="more than 1 value per channel") as refused:
        norm(torch.ones(rank, CHANNELS, 1, 1))
    return {"told": str(refused.value), "batches": int(norm.num_batches_tracked)}


def quiet(rank: int) -> dict[str, Any]:
    """How many collectives run where none is needed: in eval mode, for frozen inputs, twice."""
    norm: Any = synchronise_norms(convert_dual_norm(nn.BatchNorm2d(CHANNELS)))
    x = torch.randn(4, CHANNELS, 2, 2)
    with counted() as calls:
        norm(x).sum().backward()
        of_leaf = len(calls)
        norm.eval()(x).sum().backward()
    again = synchronise_norms(synchronise_norms(norm.train()))
    with counted() as twice:
        again(x.requires_grad_()).sum().backward()
    group = distributed.new_group([0, 1])
    with counted() as groups:
        synchronise_norms(norm, group)(x).sum().backward()
    assert [found is group for found in groups] == [True, True]
    return {"leaf": of_leaf, "eval": len(calls) - of_leaf, "twice": len(twice)}


class Block(nn.Module):
    """A block whose activations a checkpoint drops."""

    def __init__(self, checkpointed: bool, pruned: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.norms = nn.Sequential(nn.Conv2d(CHANNELS, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.norms.append(nn.BatchNorm2d(4))
        convert_dual_norm(self.double())
        oracle.randomize(self)
        self.checkpointed = checkpointed
        if pruned:  # by a hook that runs where the half is called as a module
            half: Any = self.norms[1]
            prune.random_unstructured(half.aux_bn, "weight", 2)

    def forward(self, x: Tensor) -> Any:
        if self.checkpointed:
            return checkpoint(self.norms, x, use_reentrant=False)
        return self.norms(x)


NETWORKS = {"plain": (False, False), "checkpointed": (True, False), "pruned": (False, True)}
ROWS = ((3, 1), (0, 4))  # main and auxiliary rows of each process


def train(block: nn.Module, x: Tensor, num_main: int) -> dict[str, Tensor]:
    with route(block, num_main):
        y = block(x.requires_grad_())
    (y.sin() * torch.linspace(0, 1, 4, dtype=y.dtype)[:, None, None]).sum().backward()
    assert x.grad is not None
    return {"y": y.detach(), "dx": x.grad}


def batch() -> list[Tensor]:
    """Rows of the processes: main ones, then auxiliary ones."""
    x = torch.randn(8, CHANNELS, 3, 3, generator=torch.Generator().manual_seed(5)).double()
    return list(x.split([ROWS[0][0], ROWS[1][0], ROWS[0][1], ROWS[1][1]]))


def networks(rank: int) -> dict[str, Any]:
    found = {}
    for name, kind in NETWORKS.items():
        block = synchronise_norms(Block(*kind))
        parts = batch()
        x = torch.cat([parts[rank], parts[2 + rank]])
        found[name] = {
            "results": train(block, x, ROWS[rank][0]),
            "gradients": gradients(block),
            "state": dict(block.state_dict()),
        }
    return found


@pytest.mark.parametrize("name", CASES)
def test_is_the_norm_of_the_whole_batch(name: str, ranks: list[dict[str, Any]]) -> None:
    case = CASES[name]
    norm = norm_of(case)
    whole = run(norm, case, inputs_of(case), sum(case.main))
    tolerance: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12 * max(1, case.mean)}
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


@pytest.mark.parametrize("name", NARROW)
def test_errs_no_more_than_the_norm_of_the_whole_batch(
    name: str, ranks: list[dict[str, Any]]
) -> None:
    case = NARROW[name]
    same, truth = norm_of(case), norm_of(case).double()
    inputs = inputs_of(case)
    expected = run(same, case, inputs, sum(case.main))
    exact = case._replace(dtype=torch.float64)
    wide = run(truth, exact, [value.double() for value in inputs], sum(case.main))
    for rank, found in enumerate(ranks):
        for key in expected:
            three = found[name]["results"][key], expected[key], wide[key]
            ours, theirs, right = three[0], *(own_rows(case, t, rank) for t in three[1:])
            assert_no_worse(ours, theirs, right, name=key)
        for key, value in same.state_dict().items():
            if value.is_floating_point():
                right = truth.state_dict()[key]
                assert_no_worse(found[name]["state"][key], value, right, name=key)
    for key, value in gradients(same).items():
        total = sum(found[name]["gradients"][key].double() for found in ranks)
        # Each process rounds its own sum.
        unit = torch.finfo(value.dtype).eps * float(gradients(truth)[key].abs().max())
        torch.testing.assert_close(total, gradients(truth)[key], rtol=0, atol=64 * unit)


def test_a_single_value_in_all_processes_is_refused_by_all(ranks: list[dict[str, Any]]) -> None:
    told = [found["single_value"] for found in ranks]
    assert told[0] == told[1] and told[0]["batches"] == 0


def test_asks_nobody_without_need(ranks: list[dict[str, Any]]) -> None:
    """A gradient of parameters alone, an eval-mode norm, a second conversion."""
    for found in ranks:
        assert found["quiet"] == {"leaf": 1, "eval": 0, "twice": 2}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_those_of_the_whole_batch(name: str, ranks: list[dict[str, Any]]) -> None:
    """Under a checkpoint, which computes again, and with a half that a hook works on."""
    block = Block(*NETWORKS[name])
    whole = train(block, torch.cat(batch()), sum(rows[0] for rows in ROWS))
    for rank, found in enumerate(ranks):
        for key, value in whole.items():
            parts = value.split([len(part) for part in batch()])
            own = torch.cat([parts[rank], parts[2 + rank]])
            torch.testing.assert_close(found["networks"][name]["results"][key], own)
        for key, value in block.state_dict().items():
            torch.testing.assert_close(found["networks"][name]["state"][key], value)
    for key, value in gradients(block).items():
        total = sum(found["networks"][name]["gradients"][key] for found in ranks)
        torch.testing.assert_close(total, value)
