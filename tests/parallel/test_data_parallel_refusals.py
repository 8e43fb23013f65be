"""What a step would pass over in a DistributedDataParallel is refused, not ignored."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parallel.distributed import _MixedPrecision

from entprop_fast import create_method
from entprop_fast.methods import GPaCo
from entprop_fast.parallel.wrapping import replicate
from tests.methods.support import (
    CLASSES,
    assert_equal,
    batch,
    dual_network,
    everything,
    make,
    plain_network,
    sgd,
)
from tests.processes import WORLD, group_of_one

Wrapped = DistributedDataParallel


@pytest.fixture(autouse=True)
def process_group() -> Iterator[None]:
    with group_of_one():
        yield


def _hooked(model: Wrapped) -> None:
    model.register_comm_hook(None, default_hooks.allreduce_hook)


def test_mixed_precision() -> None:
    """As the other settings of the wrapper's own forward: test_torch_internals.py has each."""
    model = Wrapped(dual_network())
    model.mixed_precision = _MixedPrecision()  # DDP itself takes one on a GPU only
    with pytest.raises(ValueError, match=r"DistributedDataParallel has .*mixed_precision"):
        create_method("entprop", model, sgd(model))


def test_threads_in_place_of_processes() -> None:
    model = nn.DataParallel(dual_network())
    model.device_ids = [0, 1]  # as where there are two
    with pytest.raises(ValueError, match=r"^model is a DataParallel.*torchrun"):
        create_method("entprop", model, sgd(model))


@pytest.mark.parametrize("seen", [False, True])
def test_a_hook_that_comes_later_changes_nothing(seen: bool) -> None:
    model = Wrapped(dual_network())
    method = create_method("entprop", model, sgd(model))
    if seen:
        method(*batch())
    _hooked(model)
    before = everything(method)
    for step in (method, method.backward):
        with pytest.raises(ValueError, match="a communication hook"):
            step(*batch())
    assert_equal(everything(method), before)


def test_join() -> None:
    model = Wrapped(dual_network())
    method = create_method("entprop", model, sgd(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of uneven inputs, torch's own
        with pytest.raises(ValueError, match=r"join\(\).*as many batches"), model.join():
            method(*batch())


def _compiled() -> nn.Module:
    compiled: Any = torch.compile(Wrapped(dual_network()), backend="eager")
    assert isinstance(compiled, nn.Module)
    return compiled


@pytest.mark.parametrize(
    ("argument", "inside"),
    [
        ("model", lambda: nn.Sequential(Wrapped(dual_network()))),
        ("model", _compiled),
        ("criterion", lambda: Wrapped(GPaCo(CLASSES).double())),
    ],
)
def test_a_wrapper_that_is_not_the_model(argument: str, inside: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match=f"{argument} holds a DistributedDataParallel"):
        make("entprop", **{argument: inside()})


def test_refusals_of_any_model_name_its_own_parameters() -> None:
    model = Wrapped(dual_network())
    optimizer = torch.optim.SGD(model.module.get_submodule("head").parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"\(model\.conv1\.weight, "):
        create_method("entprop", model, optimizer)
    with pytest.raises(ValueError, match="needs dual norms"):
        make(model=Wrapped(plain_network()))
    with pytest.raises(ValueError, match="eval mode"):
        make(model=model.eval())


def test_what_the_wrapper_ignores_stays_at_home() -> None:
    network = plain_network()
    Wrapped._set_params_and_buffers_to_ignore_for_model(network, ["head.bias", "bn1.running_mean"])
    model = Wrapped(network)
    exchanged: Any = create_method("vanilla", model, sgd(model))._replicas
    names = {f"model.{name}" for name, _ in network.named_parameters()} - {"model.head.bias"}
    assert set(exchanged._averaged) == names
    buffers = exchanged._exchanged(nn.Module.named_buffers)
    held = {id(buffer) for buffer in buffers.values()}
    assert held == {id(b) for n, b in network.named_buffers() if n != "bn1.running_mean"}


def test_the_compiled_network_is_wrapped_last() -> None:
    torch.compiler.reset()
    plain, network = dual_network(), dual_network()
    compiled: Any = torch.compile(network, backend="eager")
    one = make(model=plain, mixup=0.0)
    other = make(model=Wrapped(compiled), mixup=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, while it traces
        assert_equal(list(one(*batch())), list(other(*batch())))
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(network.get_parameter(name), parameter, rtol=0, atol=1e-12)


class Branching(nn.Module):
    """Reaches its head's bias in some processes only."""

    def __init__(self, body: nn.Module, *, bias: bool) -> None:
        super().__init__()
        self.body, self.bias = body, bias

    def forward(self, x: Tensor) -> Tensor:
        if not self.bias:
            self.body.get_submodule("head").bias.requires_grad_(False)
        y: Tensor = self.body(x)
        self.body.get_submodule("head").bias.requires_grad_(True)
        return y


def disagreeing(rank: int) -> dict[str, Any]:
    """From the first step on; and from a later one, where one rank alone does something else."""
    model = Wrapped(Branching(plain_network(), bias=rank == 0))
    with pytest.raises(RuntimeError) as at_once:
        create_method("vanilla", model, sgd(model))(*batch())
    branching = Branching(plain_network(), bias=True)
    model = Wrapped(branching)
    method = create_method("vanilla", model, sgd(model))
    method(*batch())
    branching.bias = rank == 0
    with pytest.raises(RuntimeError) as later:
        method(*batch(seed=1))
    return {"at once": str(at_once.value), "later": str(later.value)}


def refused_group(rank: int) -> str:
    groups = [distributed.new_group([one]) for one in range(WORLD)]
    model = Wrapped(plain_network(), process_group=groups[rank])
    with pytest.raises(ValueError) as error:
        create_method("vanilla", model, sgd(model))
    return str(error.value)


def run_rank(rank: int) -> dict[str, Any]:
    return {"disagreeing": disagreeing(rank), "group": refused_group(rank)}


def test_ranks_that_reach_other_parameters_are_told(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        for told in found["disagreeing"].values():
            assert "1 parameters (model.body.head.bias) have" in told


def test_a_group_of_some_processes_is_refused(ranks: list[dict[str, Any]]) -> None:
    assert all("holds 1 of 2 processes" in found["group"] for found in ranks)


def test_a_wrapper_without_buckets() -> None:
    """Made while one parameter asks for a gradient; its method takes the same steps."""
    given = batch()
    plain, ours = dual_network(), dual_network()
    ours.get_parameter("conv1.weight").requires_grad_(False)
    plain.get_parameter("conv1.weight").requires_grad_(False)
    flags = [parameter.requires_grad for parameter in ours.parameters()]
    one, other = (
        create_method("entprop", model, sgd(model), mixup=0.0)
        for model in (Wrapped(plain), replicate(ours))
    )
    assert [parameter.requires_grad for parameter in ours.parameters()] == flags
    for _ in range(2):
        one(*given)
        other(*given)
    assert_equal(everything(one), everything(other))
