"""DistributedDataParallel over NCCL, with a group of one: the exchange itself, on a CUDA device."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from entprop_fast import create_method
from entprop_fast.capture import capturable_optimizer
from entprop_fast.methods import METHODS
from entprop_fast.parallel import buckets, replicas
from entprop_fast.parallel.replicas import Replicas
from entprop_fast.parallel.wrapping import replicate
from tests.methods.support import ONE_VIEW, assert_equal, batch, dual_network, parameters, sgd
from tests.processes import group_of_one

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """In place of this folder's: deterministic convolutions, and a group over NCCL."""
    before = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.cuda.set_device(CUDA)
    with group_of_one("nccl"):
        yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def network() -> nn.Module:
    return dual_network(dtype=torch.float32).to(CUDA)


def on_device(seed: int) -> tuple[Tensor, Tensor]:
    images, labels = batch(seed=seed, dtype=torch.float32)
    return images.to(CUDA), labels.to(CUDA)


def source() -> torch.Generator:
    return torch.Generator(CUDA).manual_seed(5)


@pytest.mark.parametrize("name", METHODS)
def test_a_wrapped_model_takes_the_steps_of_a_bare_one_and_waits_for_nothing(name: str) -> None:
    bare, inner = network(), network()
    model = DistributedDataParallel(inner, device_ids=[CUDA.index])
    method, wrapped = (
        create_method(
            name,
            m,
            sgd(m),
            generator=source(),
            capture="off",
            **ONE_VIEW.get(name, {}),
            max_grad_norm=1.0,
        )
        for m in (bare, model)
    )
    batches = [on_device(seed) for seed in range(4)]
    for seed, one in enumerate(batches):
        method(*one)
        if seed == 3:  # the set of parameters with gradients is known, and read no more
            torch.cuda.set_sync_debug_mode("error")
        try:
            wrapped(*one)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert_equal(parameters(inner), parameters(bare))
    assert distributed.get_backend() == "nccl"


@pytest.fixture
def exchanging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a group of one exchange its gradients as several processes do."""
    made = Replicas.__init__

    def init(self: Replicas, *given: Any, **options: Any) -> None:
        made(self, *given, **options)
        self.several = True

    monkeypatch.setattr(Replicas, "__init__", init)
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 400)
    monkeypatch.setattr(buckets, "FIRST_BYTES", 100)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_leave_while_the_last_pass_runs(name: str, exchanging: None) -> None:
    bare, inner = network(), network()
    model = replicate(inner, device_ids=[CUDA.index])
    method, wrapped = (
        create_method(name, m, sgd(m), generator=source(), capture="off", **ONE_VIEW.get(name, {}))
        for m in (bare, model)
    )
    assert replicas.OVERLAPS["nccl"]
    for seed in range(4):
        method(*on_device(seed))
        wrapped(*on_device(seed))
    assert_equal(parameters(inner), parameters(bare))


@pytest.mark.parametrize("several", [False, True])
def test_captured_steps_are_the_eager_ones(several: bool, request: pytest.FixtureRequest) -> None:
    if several:  # two graphs, the exchange between them
        request.getfixturevalue("exchanging")
    captured, eager = network(), network()
    method, other = (
        create_method(
            "entprop",
            model := replicate(inner, device_ids=[CUDA.index]),
            sgd(model),
            generator=source(),
            capture=capture,
            max_grad_norm=1.0,
        )
        for inner, capture in ((captured, "on"), (eager, "off"))
    )
    capturable_optimizer(other.optimizer, CUDA)
    for seed in range(8):
        method(*on_device(seed))
        other(*on_device(seed))
    assert method.captures.replays == 5
    assert_equal(parameters(captured), parameters(eager))


def test_backward_is_replayed() -> None:
    captured, eager = network(), network()
    method, other = (
        create_method("entprop", model, sgd(model), generator=source(), capture=capture)
        for model, capture in ((captured, "on"), (eager, "off"))
    )
    for seed in range(8):
        for one in (method, other):
            if seed % 2 == 0:
                one.optimizer.zero_grad()
            one.backward(*on_device(seed), weight=0.5)
    assert method.captures.replays == 5
    for got, wanted in zip(captured.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-5, atol=1e-6)
