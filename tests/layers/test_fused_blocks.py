"""A fused block is changed, hooked, copied, pickled and traced as the block it was made from."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models import regnet as timm_regnet
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet

from entprop_fast import convert_dual_norm, route
from entprop_fast.layers import DualBatchNorm2d
from tests.layers.fused_blocks import (
    CHANNELS,
    assert_same,
    basic,
    dual,
    fused,
    images,
    patterns,
)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """With a residual, with a ReLU: of every pass of a dual batch norm."""
    found: list[tuple[bool, bool]] = []
    forward = DualBatchNorm2d.forward

    def recorded(
        self: Any, x: Tensor, residual: Tensor | None = None, *, relu: bool = False
    ) -> Any:
        if isinstance(x, Tensor):
            found.append((residual is not None, relu))
        return forward(self, x, residual, relu=relu)

    monkeypatch.setattr(DualBatchNorm2d, "forward", recorded)
    return found


ONE_PASS = [(False, True), (True, True)]


def test_norm_sum_and_relu_are_one_pass(passes: list[tuple[bool, bool]]) -> None:
    plain, x = basic(), images(CHANNELS, 5)
    model = fused(plain)
    plain(x)
    assert passes == [(False, False)] * 2
    passes.clear()
    model(x)
    assert passes == ONE_PASS


def _gelu(block: Any) -> None:
    block.relu = nn.GELU()


def _watched_relu(block: Any) -> None:
    block.relu.register_forward_hook(lambda m, a, y: 2 * y)


def _own_forward(block: Any) -> None:
    block.relu.forward = lambda x: x


def _other_downsample(block: Any) -> None:
    block.downsample = nn.Conv2d(CHANNELS, CHANNELS, 1).double()
    nn.init.ones_(block.downsample.weight)


CHANGES: dict[str, Callable[[Any], None]] = {
    "another activation": _gelu,
    "a hook on the activation": _watched_relu,
    "an activation with a forward of its own": _own_forward,
    "a module more": _other_downsample,
    "an attribute": lambda block: setattr(block, "stride", 1.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_afterwards_it_runs_as_it_is(name: str, passes: list[tuple[bool, bool]]) -> None:
    plain, x = basic(), images(CHANNELS, 5)
    model = fused(plain)
    torch.manual_seed(0)
    CHANGES[name](plain)
    torch.manual_seed(0)
    CHANGES[name](model)
    copy.deepcopy(model)(x)
    assert passes == [(False, False)] * 2
    assert_same(model, plain, x, 2, training=True)


def test_a_hook_sees_what_its_norm_gives(passes: list[tuple[bool, bool]]) -> None:
    model, x = fused(basic()).eval(), images(CHANNELS, 5)
    expected = model(x)
    passes.clear()
    seen: list[Tensor] = []
    model.bn1.register_forward_hook(lambda m, a, y: seen.append(y.clone()))
    torch.testing.assert_close(model(x), expected)
    assert (seen[0] < 0).any() and passes == [(False, False), (True, True)]


def test_hooks_on_modules_in_the_graph_run(passes: list[tuple[bool, bool]]) -> None:
    model = fused(dual(timm_regnet.Bottleneck(CHANNELS, CHANNELS, group_size=4)))
    x, calls = images(CHANNELS, 5), Counter[str]()
    model.register_forward_hook(lambda *_: calls.update(["block"]))
    model(x)
    assert passes[-1] == (True, True)
    model.conv3.register_forward_hook(lambda *_: calls.update(["part"]))
    model(x)
    assert calls == {"block": 2, "part": 1} and passes[-1] == (False, False)


def test_a_hook_on_all_modules_sees_them_all() -> None:
    model, seen = fused(basic()), Counter[type]()
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.update([type(m)]))
    try:
        model(images(CHANNELS, 5))
    finally:
        handle.remove()
    assert seen[nn.ReLU] == 2


def test_copies_route_and_change_by_themselves(passes: list[tuple[bool, bool]]) -> None:
    model, x = fused(nn.Sequential(basic(), basic())).eval(), images(CHANNELS, 5)
    twin = copy.deepcopy(model)
    passes.clear()
    with route(model, "aux"):
        auxiliary, main = model(x), twin(x)
    assert passes == 4 * ONE_PASS
    assert torch.equal(main, model(x)) and not torch.equal(main, auxiliary)
    with torch.no_grad():
        twin[0].bn2.weight.zero_()
    assert torch.equal(main, model(x)) and not torch.equal(main, twin(x))
    passes.clear()
    twin[1].relu = nn.ReLU6()  # of the copy alone
    twin(x)
    model(x)
    assert passes == [*ONE_PASS, *[(False, False)] * 2, *ONE_PASS, *ONE_PASS]


def test_what_is_unpickled_is_right_and_can_be_fused() -> None:
    model, x = fused(basic()).eval(), images(CHANNELS, 5)
    loaded = pickle.loads(pickle.dumps(model))
    assert type(loaded) is resnet.BasicBlock and patterns(loaded) == {"": 2}
    assert torch.equal(loaded(x), model(x)) and vars(loaded).keys() < vars(model).keys()
    assert patterns(convert_dual_norm(loaded, fuse=True)) == {"relu": 1, "add+relu": 1}
    assert patterns(convert_dual_norm(model, fuse=True)) == {"relu": 1, "add+relu": 1}
    assert patterns(copy.copy(model)) == {"": 2}


def test_a_fused_block_is_traced_checkpointed_and_called_by_name() -> None:
    plain, x = basic(), images(CHANNELS, 5)
    model = fused(plain)
    nodes = [node.target for node in symbolic_trace(model).graph.nodes]
    assert nodes == [node.target for node in symbolic_trace(plain).graph.nodes]
    assert torch.equal(copy.deepcopy(model)(x=x), copy.deepcopy(plain)(x=x))
    assert list(inspect.signature(model.forward).parameters) == ["x"]
    for one in (plain, model):
        with route(one, 2):
            y: Any = checkpoint(one, x, use_reentrant=False)
        y.square().sum().backward()
    pairs = zip(model.named_parameters(), plain.parameters(), strict=True)
    for (name, found), expected in pairs:
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-12, atol=1e-12, msg=name)


class WithOptions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS)

    def forward(
        self, x: Tensor, shortcut: Tensor | None = None, scale: Tensor | None = None
    ) -> Any:
        y = self.norm(x) + (x if shortcut is None else shortcut)
        return F.relu(y) if scale is None else F.relu(y) * scale


def test_optional_arguments(passes: list[tuple[bool, bool]]) -> None:
    """Each number of arguments has a graph; None in the place of a tensor has none."""
    plain = dual(WithOptions())
    model = fused(plain)
    x, other = images(CHANNELS, 5), images(CHANNELS, 5)
    passes.clear()
    for given in ((x,), (x, other), (x, other, x)):
        assert torch.equal(model(*given), plain(*given))
        assert passes == [(True, True), (False, False)]
        passes.clear()
    model(x, None, x)
    assert passes == [(False, False)]
