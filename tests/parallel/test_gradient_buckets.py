"""Buckets of gradients: their values, their number, their order, when they leave and what fails."""

import faulthandler
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from entprop_fast import Method, create_method
from entprop_fast.parallel import buckets, replicas
from entprop_fast.parallel.buckets import IN_FLIGHT, plan
from tests.methods.support import (
    assert_equal,
    batch,
    dual_network,
    frozen_network,
    generator,
    gradients,
    parameters,
    sgd,
)
from tests.processes import WORLD

BYTES = 400  # of a bucket; the networks of the tests have about 6000 bytes of parameters
FIRST = 100
WAYS = {"after": False, "during": True}


def own_batch(rank: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return batch(6 + rank, seed=2 * seed + rank)


class Watched:
    """Every all-reduce of gradients, by its size, and how many buckets existed at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.most = 0
        self.during: list[int] = []  # how many left while a backward pass ran, step by step

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Replace torch's function, as the buckets call it."""
        original = dist.all_reduce

        def all_reduce(flat: Tensor, *given: Any, **options: Any) -> Any:
            if options.get("async_op"):
                self.sizes.append(flat.numel())
                self.during.append(torch._C._current_graph_task_id() != -1)
            return original(flat, *given, **options)

        send = buckets.Buckets._send

        def counted(one: buckets.Buckets, *given: Any) -> None:
            self.most = max(self.most, len(one._flying) + 1)
            send(one, *given)

        dist.all_reduce = all_reduce  # type: ignore[assignment]
        buckets.Buckets._send = counted  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            dist.all_reduce = original
            buckets.Buckets._send = send  # type: ignore[method-assign]


def of(
    name: str, rank: int, *, model: nn.Module | None = None, wrap: bool = True, **o: Any
) -> Method:
    model = dual_network() if model is None else model
    wrapped = DistributedDataParallel(model) if wrap else model
    return create_method(name, wrapped, sgd(model), generator=generator(rank), **o)


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vanilla": ("vanilla", {}),
    "entprop": ("entprop", {"n": 2}),  # main norms in the first pass, auxiliary ones in the last
    "all": ("entprop", {"n": 2, "accumulate": "all"}),
    "advprop": ("advprop", {"n": 1}),
    "mixprop": ("mixprop", {}),
    "entprop_pipelined": ("entprop_pipelined", {}),  # reaches more from the second step on
    "free_at": ("free_at", {"replays": 2}),
    "fast_advprop": ("fast_advprop", {"p_adv": 0.5}),
    "equalized": ("entprop", {"k": 0.5, "equalize": True}),
}


def steps(key: str, rank: int) -> dict[str, Any]:
    name, options = CASES[key]
    method, watched = of(name, rank, **options), Watched()
    found = []
    with watched.watching():
        for seed in range(3):
            method(*own_batch(rank, seed))
            found.append(gradients(method.model))
    return {
        "gradients": found,
        "parameters": parameters(method.model),
        "sizes": watched.sizes,
        "most": watched.most,
        "during": sum(watched.during),
    }


def one_mean(rank: int) -> list[dict[str, Tensor | None]]:
    """What one flat mean gives, from the gradients of each rank alone."""
    alone = [of("entprop", one, wrap=False, model=frozen_network(), n=2) for one in range(WORLD)]
    for one, method in enumerate(alone):
        method.backward(*own_batch(one))
    return [gradients(method.model) for method in alone]


def accumulated(rank: int) -> dict[str, Any]:
    model = DistributedDataParallel(frozen_network())
    method: Any = create_method("vanilla", model, sgd(model))
    watched = Watched()
    method.backward(*own_batch(rank, 7))  # what it learns of, if anything
    method.optimizer.zero_grad()
    with watched.watching():
        with model.no_sync():
            method.backward(*own_batch(rank, 0))
            before = gradients(method.model)
        silent = len(watched.sizes)
        method.backward(*own_batch(rank, 1))
    return {"before": before, "after": gradients(method.model), "silent": silent}


class Fails(nn.Module):
    """Raises in the backward pass of its head, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.at, self.calls = dual_network(), -1, 0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        self.calls += 1
        if self.calls == self.at:
            parameter = self.body.get_parameter("conv1.weight")
            y = y + 0 * parameter.sum()
            first = self.body.get_parameter("head.weight")

            def fail(_: Tensor) -> None:
                handle.remove()
                raise KeyError("out of order")

            handle = first.register_post_accumulate_grad_hook(fail)
        return y


def failing(rank: int) -> dict[str, Any]:
    """Rank 1 fails within its last backward pass; then both go on, with the same numbers."""
    model = Fails()
    method = of("entprop", rank, model=model, n=1)
    for seed in range(2):
        method(*own_batch(rank, seed))
    if rank == 1:
        model.at = model.calls + 2
    errors = []
    try:
        method(*own_batch(rank, 2))
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
    model.at = -1
    wrapper: Any = method._replicas
    wrapper._broadcast(list(model.parameters()))  # the failed one moved nothing of these
    method(*own_batch(rank, 3))
    return {"errors": errors, "parameters": parameters(model)}


def lost(rank: int) -> list[str]:
    """Rank 1 fails, and cannot even keep in step: named in both, also later, without a wait."""
    model = Fails()
    method = of("entprop", rank, model=model, n=1)
    for seed in range(2):
        method(*own_batch(rank, seed))
    if rank == 1:
        model.at = model.calls + 2
        buckets.Buckets.abandon = None  # type: ignore[assignment, method-assign]
    errors = []
    for seed in range(2):
        try:
            method(*own_batch(rank, 2 + seed))
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
    return errors


class Nested(nn.Module):
    """Checkpoints its body in two segments that share a parameter, by nested backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = dual_network()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.start = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        def scaled(y: Tensor) -> Tensor:
            return y * self.scale

        y = checkpoint(scaled, x + self.start, use_reentrant=True)
        y = self.body(y)
        z: Tensor = checkpoint(scaled, y, use_reentrant=True)
        return z


def nested(rank: int) -> dict[str, Any]:
    method = of("entprop", rank, model=Nested(), n=1)
    for seed in range(3):
        method(*own_batch(rank, seed))
    return parameters(method.model)


def run_rank(rank: int) -> dict[str, Any]:
    faulthandler.dump_traceback_later(240, exit=True)
    buckets.BUCKET_BYTES, buckets.FIRST_BYTES = BYTES, FIRST
    found: dict[str, Any] = {"alone": one_mean(rank)}
    for way, overlaps in WAYS.items():
        replicas.OVERLAPS["gloo"] = overlaps
        for key in CASES:
            found[f"{way} {key}"] = steps(key, rank)
        method = of("entprop", rank, model=frozen_network(), n=2)
        for _ in range(2):  # in the second the buckets are known
            method.optimizer.zero_grad()
            method.generator = generator(rank)
            method.backward(*own_batch(rank))
        found[f"{way} mean"] = gradients(method.model)
        found[f"{way} accumulated"] = accumulated(rank)
        found[f"{way} nested"] = nested(rank)
        found[f"{way} failing"] = failing(rank)
    abandon = buckets.Buckets.abandon
    found["lost"] = lost(rank)
    buckets.Buckets.abandon = abandon  # type: ignore[method-assign]
    gc.collect()
    faulthandler.cancel_dump_traceback_later()
    return found


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def mean(both: list[dict[str, Tensor | None]]) -> dict[str, Tensor | None]:
    pairs = {name: (value, both[1][name]) for name, value in both[0].items()}
    return {
        name: None if one is None or other is None else (one + other) / WORLD
        for name, (one, other) in pairs.items()
    }


@pytest.mark.parametrize("way", WAYS)
def test_the_values_are_those_of_one_flat_mean(way: str, ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        close(found[f"{way} mean"], mean(found["alone"]))


@pytest.mark.parametrize("key", CASES)
def test_both_ways_give_the_same_bits_on_both_ranks(key: str, ranks: list[dict[str, Any]]) -> None:
    for name in ("gradients", "parameters"):
        for found in ranks:
            assert_equal(found[f"during {key}"][name], found[f"after {key}"][name])
            assert_equal(found[f"during {key}"][name], ranks[0][f"during {key}"][name])


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("way", WAYS)
def test_the_ranks_launch_the_same_buckets_in_the_same_order(
    way: str, key: str, ranks: list[dict[str, Any]]
) -> None:
    one, other = (found[f"{way} {key}"]["sizes"] for found in ranks)
    assert one == other and len(one) > 3 * IN_FLIGHT
    assert max(one) * 8 <= max(BYTES, 6 * 4 * 9 * 8)  # the largest weight is a bucket of its own


@pytest.mark.parametrize("key", CASES)
def test_buckets_leave_before_the_last_backward_pass_ends(
    key: str, ranks: list[dict[str, Any]]
) -> None:
    for found in ranks:
        assert found[f"after {key}"]["during"] == 0
        divides = key in ("fast_advprop", "equalized")  # after the passes
        assert (found[f"during {key}"]["during"] > 0) == (not divides)


@pytest.mark.parametrize("way", WAYS)
def test_a_few_buckets_exist_at_a_time(way: str, ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        for key in CASES:
            assert 1 <= found[f"{way} {key}"]["most"] <= IN_FLIGHT


@pytest.mark.parametrize("way", WAYS)
def test_no_sync_adds_up_and_says_nothing(way: str, ranks: list[dict[str, Any]]) -> None:
    alone = []
    for rank in range(WORLD):
        method = of("vanilla", rank, model=frozen_network(), wrap=False)
        method.backward(*own_batch(rank, 0))
        found = ranks[rank][f"{way} accumulated"]
        assert_equal(found["before"], gradients(method.model))
        assert found["silent"] == 0
        method.backward(*own_batch(rank, 1))
        alone.append(gradients(method.model))
    for found in ranks:
        close(found[f"{way} accumulated"]["after"], mean(alone))


def test_nested_backward_passes(ranks: list[dict[str, Any]]) -> None:
    """A parameter that one pass adds to twice."""
    for found in ranks:
        assert_equal(found["during nested"], ranks[0]["after nested"])


@pytest.mark.parametrize("way", WAYS)
def test_a_rank_that_fails_within_its_last_backward_pass(
    way: str, ranks: list[dict[str, Any]]
) -> None:
    """With buckets under way: an error in both, and both go on."""
    (one,), (other,) = (found[f"{way} failing"]["errors"] for found in ranks)
    assert one.startswith("RuntimeError: rank 1 failed") and "out of order" in one
    assert other.startswith("KeyError")
    assert_equal(*(found[f"{way} failing"]["parameters"] for found in ranks))


def test_a_rank_that_leaves_an_exchange_half_done(ranks: list[dict[str, Any]]) -> None:
    one, other = (found["lost"] for found in ranks)
    assert one[0].startswith("RuntimeError: rank 1 failed") and "out of order" in one[0]
    assert other[0].startswith("KeyError")
    for errors in (one, other):
        assert errors[1].startswith("RuntimeError: the processes cannot go on together")


def test_a_plan() -> None:
    """From the last parameter to the first, one dtype a bucket, large ones alone."""
    sizes = [10, 70, 3, 3, 40, 2, 2]
    some = [torch.zeros(size, dtype=torch.float64) for size in sizes]
    some[5] = some[5].float()
    before = buckets.BUCKET_BYTES, buckets.FIRST_BYTES
    buckets.BUCKET_BYTES, buckets.FIRST_BYTES = 400, 100
    try:
        assert plan(some, range(7)) == ((6,), (5,), (4, 3, 2), (1,), (0,))
        assert plan(some, [0, 2]) == ((2,), (0,))
        assert plan(some, []) == ()
    finally:
        buckets.BUCKET_BYTES, buckets.FIRST_BYTES = before
