"""Who holds the graph of an earlier pass, found on real graphs; fault 3 of the GPU's review."""

import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from entprop_fast.capture import held_graphs
from entprop_fast.capture.held_graphs import describe_holder, held_parameters
from tests.capture.recording import RecordingGraphs
from tests.capture.support import make
from tests.methods.support import batch, dual_network
from tests.processes import group_of_one


@pytest.fixture
def network() -> nn.Module:
    gc.collect()
    return dual_network(dtype=torch.float32)


def loss_of(model: nn.Module) -> Tensor:
    images, labels = batch(dtype=torch.float32)
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    return loss


def test_a_held_loss_is_named(network: nn.Module) -> None:
    for _ in range(2):
        loss = loss_of(network)
        told = describe_holder(network.named_parameters())
        assert told is not None
        assert told.startswith("a tensor of shape () from NllLossBackward0 holds the graph")
        used = [n for n, _ in network.named_parameters() if "aux" not in n]
        assert f"gradient nodes of {len(used)} parameters (conv1.weight, ...)" in told
        assert list(held_parameters(network.named_parameters())) == used
        del loss
        assert describe_holder(network.named_parameters()) is None


def test_a_part_of_the_network(network: nn.Module) -> None:
    held = [network[0].weight.square().sum()]  # type: ignore[index]
    told = describe_holder(network.named_parameters())
    assert told is not None and told.startswith("a tensor of shape () from SumBackward0 holds")
    assert told.endswith("gradient nodes of conv1.weight")
    assert held


def test_frozen_parameters_have_no_nodes(network: nn.Module) -> None:
    network.requires_grad_(False)
    assert describe_holder(network.named_parameters()) is None


def test_what_holds_nodes_without_a_tensor(network: nn.Module) -> None:
    with group_of_one():
        wrapper = DistributedDataParallel(network)
        told = describe_holder(network.named_parameters())
        assert wrapper and told is not None and "such as a DistributedDataParallel" in told


def test_a_sum_that_went_on_for_ever(network: nn.Module) -> None:
    """Nodes that Python has seen are freed one within the other: more would end the process."""
    total = loss_of(network)
    for _ in range(70_000):
        total = total + 1.0
    told = describe_holder(network.named_parameters())
    assert told is not None and told.startswith("something holds the graph")
    del total
    assert describe_holder(network.named_parameters()) is None


def test_a_sum_of_many_losses(network: nn.Module) -> None:
    """The nearest nodes are looked through first, and lead to the last loss."""
    total = torch.zeros(())
    for _ in range(5_000):
        total = network[0].weight.sum() + total  # type: ignore[index]
    told = describe_holder(network.named_parameters())
    assert told is not None and told.startswith("a tensor of shape () from AddBackward0 holds")


def test_nodes_are_looked_at_once(network: nn.Module) -> None:
    """Many tensors of one graph, none of which is what holds the parameters."""
    other = torch.ones((), requires_grad=True)
    tensors = [other * 1.0]
    for _ in range(1_500):
        tensors.append(tensors[-1] + 1.0)
    wanted = {id(parameter) for parameter in network.parameters()}
    seen: set[Any] = set()
    assert not any(held_graphs._reaches(tensor, wanted, seen) for tensor in tensors)
    assert len(seen) == len(tensors) + 1


def test_a_buffer_with_a_graph_of_its_own_is_held_by_nobody(network: nn.Module) -> None:
    network.register_buffer("scale", torch.ones(2, requires_grad=True) * 2)
    assert describe_holder(dict(network.named_buffers()).items()) is None


def _held(model: nn.Module) -> Any:
    return loss_of(model)


def _freed(model: nn.Module) -> Any:
    loss_of(model)


def _cyclic(model: nn.Module) -> Any:
    """Held by garbage alone, which the second try has collected."""
    cycle: list[Any] = [loss_of(model)]
    cycle.append(cycle)


@pytest.mark.parametrize(("before", "named"), [(_held, True), (_freed, False), (_cyclic, False)])
def test_the_warning_names_what_is_held(
    recorder: RecordingGraphs,
    network: nn.Module,
    before: Callable[[nn.Module], Any],
    named: bool,
) -> None:
    """The graph of the failed try itself is none of it."""
    caller = before(network)
    method = make(model=network)
    recorder.method = method
    recorder.fails = RuntimeError("operation would make the legacy stream depend on a capture")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed in range(5):
            method(*batch(seed=seed, dtype=torch.float32))
    (told,) = [str(one.message) for one in caught if one.category is RuntimeWarning]
    assert "legacy stream depend" in told and "they run eagerly" in told
    assert ("perhaps because a tensor of shape () from NllLoss" in told) is named
    assert ("perhaps" in told) is named
    assert recorder.log.count("capture") == 2 and (caller is not None) is named
