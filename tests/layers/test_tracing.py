"""`torch.fx`, torchvision's and timm's feature extraction, and `torch.jit` on dual norms."""

import copy
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from entprop_fast import convert_dual_norm, models, route, strip_auxiliary
from entprop_fast.layers.dual_norm import DualNorm
from tests.layers import oracle

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
TARGETS: list[Any] = ["main", "aux", 2]


def network() -> Any:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        timm.layers.BatchNormAct2d(4, act_layer=nn.SiLU),
        nn.SyncBatchNorm(4),
        timm.layers.LayerNorm2d(4),
        nn.LayerNorm(6),
    )
    convert_dual_norm(model)
    oracle.randomize(model)
    return model


def images(rows: int = 4, size: int = 8) -> Tensor:
    return torch.rand(rows, 3, size, size)


def test_dual_norms_are_leaves() -> None:
    """FOUND C10: each is one node, as torch's own norms are."""
    model = network()
    graph = symbolic_trace(model)
    nodes = [node for node in graph.graph.nodes if node.op not in ("placeholder", "output")]
    assert [(node.op, node.target) for node in nodes] == [("call_module", str(i)) for i in range(6)]
    assert graph.get_submodule("1") is model[1]


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_traced_graph_routes(target: Any, training: bool) -> None:
    """FOUND C10: by its own norms, or those of the model that it was traced from."""
    model, x = network().train(training), images()
    graph = symbolic_trace(copy.deepcopy(model))
    with route(model, target), route(graph, target):
        assert torch.equal(graph(x), model(x))
    assert not oracle.moved(graph, oracle.snapshot(model))
    shared = symbolic_trace(model.eval())
    with route(model, target):
        assert torch.equal(shared(x), model(x))


def test_copies_of_a_traced_graph() -> None:
    """FOUND C10: a neighbour; a copy routes by itself, and strips to the plain network."""
    graph, x = symbolic_trace(network().eval()), images()
    with route(graph, "aux"):
        auxiliary, twin = graph(x), copy.deepcopy(graph)
        main = twin(x)
    assert torch.equal(main, graph(x)) and not torch.equal(main, auxiliary)
    with route(twin, "aux"):
        assert torch.equal(twin(x), auxiliary)
    assert torch.equal(strip_auxiliary(twin)(x), main)


def test_hooks_of_a_leaf_run_once() -> None:
    """FOUND C10: a neighbour; while tracing they see nothing, in the graph they run."""
    model, x = network().eval(), images()
    calls: list[Any] = []

    def hook(module: nn.Module, args: Any, y: Tensor) -> Tensor:
        calls.append(y)
        return 2 * y

    model[1].register_forward_hook(hook)
    expected = model(x)
    graph = symbolic_trace(model)
    assert len(calls) == 1
    assert torch.equal(graph(x), expected) and len(calls) == 2


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
@torch.no_grad()
def test_torchvision_s_feature_extraction(name: str) -> None:
    """FOUND C10: the nodes are those of the plain network."""
    plain = torchvision.models.get_model(name, weights=None, num_classes=5)
    dual = convert_dual_norm(copy.deepcopy(plain)).eval()
    nodes = get_graph_node_names(dual)
    assert nodes == get_graph_node_names(plain)
    features, x = create_feature_extractor(dual, [nodes[1][-1]]), images(2, 64)
    for layer in dual.modules():
        if isinstance(layer, DualNorm):
            oracle.randomize(layer.aux)
    for target in ("main", "aux"):
        with route(dual, target), route(features, target):
            assert torch.equal(features(x)[nodes[1][-1]], dual(x))


@pytest.mark.parametrize("name", ["resnet18", "wrn10_1"])
@pytest.mark.parametrize("dual", [False, True], ids=["plain", "dual"])
def test_our_own_networks(name: str, dual: bool) -> None:
    """FOUND C10: a neighbour; what they send to the ops at once is modules in a graph."""
    model, x = models.create(name, num_classes=5).eval(), images(2, 32)
    if dual:
        convert_dual_norm(model)
    graph = symbolic_trace(model)
    torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-4)
    if dual:
        with route(model, "aux"), route(graph, "aux"):
            torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("index", [slice(None), 1, 2, 3, 5], ids=str)
def test_scripting_is_refused_in_one_line(index: Any) -> None:
    """FOUND C10: it says what can be done."""
    with pytest.raises(RuntimeError, match=r"strip_auxiliary.*torch\.jit\.trace") as raised:
        torch.jit.script(network()[index])
    assert "\n" not in str(raised.value)


def test_what_was_stripped_is_scripted() -> None:
    """FOUND C10: and what is dual is traced."""
    model, x = network().eval(), images()
    expected = model(x)
    traced: Any = torch.jit.trace(model, x)
    torch.testing.assert_close(traced(x), expected)
    del model[3]  # SyncBatchNorm itself cannot be scripted
    expected = model(x)
    scripted: Any = torch.jit.script(strip_auxiliary(model))
    torch.testing.assert_close(scripted(x), expected)
