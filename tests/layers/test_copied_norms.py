"""torch.compile, torch.fx and torch.utils.checkpoint on norms whose halves are copies."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from entprop_fast import convert_dual_norm, route
from tests.layers import oracle
from tests.layers.oracle import Sub

TARGETS: list[Any] = ["main", "aux", 2]
run: Any = checkpoint  # it has no types


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


CHANGES: dict[str, Any] = {
    "pruned": lambda norm: prune.l1_unstructured(norm, "weight", 0.5),
    "weight_norm": lambda norm: parametrizations.weight_norm(norm, "weight"),
    "spectral_norm": lambda norm: parametrizations.spectral_norm(norm, "weight"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("make", [lambda: nn.GroupNorm(2, 8), lambda: timm.layers.RmsNorm2d(8)])
def test_a_recomputed_norm_gets_a_half_with_its_own_computation(make: Any, change: Any) -> None:
    norm = make()
    oracle.randomize(norm)
    change(norm)
    x = torch.randn(6, 8, 4, 4)
    expected = norm(x).detach()
    dual: Any = convert_dual_norm(nn.Sequential(norm))[0]
    for target in TARGETS:
        with route(dual, target):
            torch.testing.assert_close(dual(x), expected)
    with torch.no_grad():
        for parameter in dual.aux.parameters():
            parameter.uniform_(2, 3)
    assert torch.equal(dual(x), expected)
    with route(dual, "aux"):
        assert not torch.allclose(dual(x), expected)


def test_a_tensor_that_something_else_computes_is_named() -> None:
    norm: Any = timm.layers.FilterResponseNormTlu2d(8)
    computed = 2 * nn.Parameter(torch.ones(8))
    del norm.tau
    norm.tau = computed
    with pytest.warns(UserWarning, match="1 FilterResponseNormTlu2d whose tau something else"):
        convert_dual_norm(nn.Sequential(nn.LayerNorm(8), norm))


def test_an_unpickled_norm_needs_no_conversion_before(tmp_path: Path) -> None:
    """Its class is derived anew, in a process that has converted nothing."""
    torch.save(convert_dual_norm(nn.Sequential(Sub(8), nn.GroupNorm(2, 8))), tmp_path / "model")
    script = (
        "import torch\n"
        f"model = torch.load({str(tmp_path / 'model')!r}, weights_only=False)\n"
        "print(*(type(m).__name__ for m in model))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["DualSub", "DualGroupNorm"]
