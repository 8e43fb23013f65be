"""torch.compile, torch.fx and torch.utils.checkpoint on norms whose halves are copies."""

import copy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.utils.checkpoint import checkpoint

from entprop_fast import convert_dual_norm, route
from tests.layers import oracle

TARGETS: list[Any] = ["main", "aux", 2]
run: Any = checkpoint  # it has no types


class Sub(nn.BatchNorm2d):
    """A subclass without a forward of its own."""


def network() -> Any:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        timm.layers.GroupNormAct(8, 2),
        Sub(8),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        timm.layers.EvoNorm2dB0(8),
        timm.layers.RmsNorm2d(8),
    )
    convert_dual_norm(model)
    oracle.randomize(model)
    return model


def images() -> Tensor:
    return torch.randn(6, 3, 4, 4)


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    for (name, p), q in zip(found.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4, msg=name)
    for (name, b), c in zip(found.named_buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(b, c, msg=name)


@pytest.mark.parametrize("target", ["aux", 2], ids=str)
def test_compiled_as_one_graph(target: Any) -> None:
    model, x = network()[:3], images()
    twin = copy.deepcopy(model)
    compiled: Any = torch.compile(twin, backend="aot_eager", fullgraph=True)
    with route(model, target), route(twin, target):
        y, z = model(x), compiled(x)
    torch.testing.assert_close(z, y)
    y.square().mean().backward()
    z.square().mean().backward()
    assert_same(twin, model)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_checkpointed(target: Any) -> None:
    """The recomputation takes the forward's route and moves no statistic a second time."""
    model, x = network(), images()
    twin = copy.deepcopy(model)
    with route(model, target), route(twin, target):
        y, z = model(x), run(twin, x, use_reentrant=False)
    y.square().mean().backward()
    z.square().mean().backward()
    assert_same(twin, model)


def test_leaves_of_a_traced_graph() -> None:
    model, x = network(), images()
    graph = symbolic_trace(model)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == list("012345")
    model.eval()
    with route(model, 2):
        assert torch.equal(graph(x), model(x))
