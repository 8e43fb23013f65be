"""`convert_dual_norm(fuse=True)`: the same values in one pass, and none where they would differ."""

from __future__ import annotations

import copy
import inspect
import pickle
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import regnet as timm_regnet
from timm.models import resnet as timm_resnet
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.models import densenet, resnet

from entprop_fast import convert_dual_norm, route, strip_auxiliary
from entprop_fast.layers import DualBatchNorm2d, fused_norms
from entprop_fast.layers.dual_norm import DualNorm
from tests.layers import oracle

TARGETS: list[Any] = [None, "main", "aux", 2]
ROWS, CHANNELS = 4, 8


def dual(model: nn.Module) -> Any:
    """Converted, in float64, every tensor another, the halves too."""
    convert_dual_norm(model).double()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight)
        elif isinstance(module, DualNorm):
            oracle.randomize(module)
    return model


def fused(model: nn.Module) -> Any:
    return convert_dual_norm(copy.deepcopy(model), fuse=True)


def images(channels: int = 3, size: int = 16) -> Tensor:
    return torch.randn(ROWS, channels, size, size, dtype=torch.float64)


def patterns(model: nn.Module) -> dict[str, int]:
    return dict(Counter(one.pattern for one in fused_norms(model)))


def everything(model: nn.Module, x: Tensor, target: Any, training: bool) -> list[Tensor]:
    """Outputs, gradients of images and parameters, and what became of the buffers."""
    model, x = copy.deepcopy(model).train(training), x.clone().requires_grad_()
    if target is None:
        y = model(x)
    else:
        with route(model, target):
            y = model(x)
    torch.manual_seed(1)
    (y * torch.randn_like(y)).sum().backward()
    zero = torch.zeros(())
    gradients = [zero if p.grad is None else p.grad for p in model.parameters()]
    assert x.grad is not None
    return [y.detach(), x.grad, *gradients, *model.state_dict().values()]


def assert_same(model: nn.Module, other: nn.Module, x: Tensor, target: Any, training: bool) -> None:
    pairs = zip(
        everything(model, x, target, training), everything(other, x, target, training), strict=True
    )
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


basic_block: Any = timm_resnet.BasicBlock


def residual(block: Any, planes: int) -> nn.Module:
    """A stem, a block with a convolution as its shortcut, and one without."""
    shortcut = nn.Sequential(nn.Conv2d(CHANNELS, 16, 1, stride=2, bias=False), nn.BatchNorm2d(16))
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True)),
        block(CHANNELS, planes, stride=2, downsample=shortcut),
        block(16, planes),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "torchvision's basic blocks": (
        lambda: residual(resnet.BasicBlock, 16),
        {"relu": 3, "add+relu": 2, "": 1},  # that of the shortcut
    ),
    "torchvision's bottlenecks": (
        lambda: residual(resnet.Bottleneck, 4),
        {"relu": 5, "add+relu": 2, "": 1},
    ),
    "timm's basic blocks": (
        lambda: timm_resnet.ResNet(
            basic_block, (1, 1, 1, 1), num_classes=3, channels=(8, 8, 8, 16)
        ),
        {"relu": 5, "add+relu": 4, "": 4},
    ),
    "timm's regnet": (
        lambda: nn.Sequential(
            timm_regnet.Bottleneck(3, 16, stride=2, group_size=8, downsample="conv1x1"),
            timm_regnet.Bottleneck(16, 16, group_size=8),
        ),
        {"activation": 4, "add+relu": 2, "": 1},
    ),
    "torchvision's dense blocks": (
        lambda: densenet.DenseNet(4, (2, 2), 8, num_classes=3),
        {"relu": 10, "": 1},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_route_gives_the_same(name: str) -> None:
    build, expected = NETWORKS[name]
    plain, x = dual(build()), images()
    model = fused(plain)
    assert patterns(model) == expected
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert [n for n, _ in model.named_modules()] == [n for n, _ in plain.named_modules()]
    assert all(
        isinstance(m, type(p)) for m, p in zip(model.modules(), plain.modules(), strict=True)
    )
    for target, training in ((None, True), ("aux", True), (2, True), ("main", False), (2, False)):
        assert_same(model, plain, x, target, training)
    out, stripped = plain.eval()(x), strip_auxiliary(copy.deepcopy(model).eval())
    assert torch.equal(stripped(x), strip_auxiliary(copy.deepcopy(plain))(x))
    torch.testing.assert_close(stripped(x), out)
    strip_auxiliary(plain)
    assert [type(m) for m in stripped.modules()] == [type(m) for m in plain.modules()]
    assert [vars(m).keys() for m in stripped.modules()] == [vars(m).keys() for m in plain.modules()]


def test_it_is_off_unless_asked_for() -> None:
    model = dual(resnet.BasicBlock(CHANNELS, CHANNELS))
    assert type(model) is resnet.BasicBlock and patterns(model) == {"": 2}


class Block(nn.Module):
    """A convolution, a norm, and what a test does with them."""

    def __init__(self, does: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.shortcut = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.relu = nn.ReLU()
        self.does = does
        self.flag = True
        self.seen: Any = None
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x)


def _twice_used(b: Any, x: Tensor) -> Any:
    y = b.norm(b.conv(x))
    return F.relu(y) + y


def _with_itself(b: Any, x: Tensor) -> Any:
    y = b.norm(b.conv(x))
    return F.relu(y + y)


def _into_the_other(b: Any, x: Tensor) -> Any:
    y, kept = b.norm(b.conv(x)), b.shortcut(x)
    z = kept.detach().view(-1).view_as(kept)  # another name of it
    kept = kept.clone()
    other = kept.view_as(kept)
    kept += y
    return F.relu(kept) + other + z


def _called_again(b: Any, x: Tensor) -> Any:
    y = b.norm(b.conv(x))
    other = b.norm(b.shortcut(x))
    y += other
    return F.relu(y)


def _input_changes(b: Any, x: Tensor) -> Any:
    z = b.conv(x)
    y = b.norm(z)
    z.add_(1)
    y += b.shortcut(x)
    return F.relu(y) + z


def _asks_for_the_class(b: Any, x: Tensor) -> Any:
    y = b.norm(b.conv(x))
    return F.relu(y) if isinstance(y, Tensor) else y


def _draws(b: Any, x: Tensor) -> Any:
    return F.relu(b.norm(b.conv(x))) * (1 if random.random() < 2 else 0)


def _draws_a_tensor(b: Any, x: Tensor) -> Any:
    return F.relu(b.norm(b.conv(x))) + (torch.rand(()) < 2)


def _keeps_something(b: Any, x: Tensor) -> Any:
    b.seen = b.norm(b.conv(x))
    y: Tensor = F.relu(b.seen)
    b.seen = None
    b.count = getattr(b, "count", 0) + 1
    return y


def _makes_a_constant(b: Any, x: Tensor) -> Any:
    return F.relu(b.norm(b.conv(x))) * torch.full((1,), 2.0, dtype=torch.float64)


def _by_grad_mode(b: Any, x: Tensor) -> Any:
    y = F.relu(b.norm(b.conv(x)))
    return y * 2 if torch.is_grad_enabled() else y


def _by_values(b: Any, x: Tensor) -> Any:
    return F.relu(b.norm(b.conv(x))) if bool(x.sum() > 0) else x


def _without_gradients(b: Any, x: Tensor) -> Any:
    with torch.no_grad():
        factor = b.shortcut(x)
    return F.relu(b.norm(b.conv(x))) * factor


def _without_autocast(b: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", enabled=False):
        return F.relu(b.norm(b.conv(x)))


REFUSED = {
    "under no_grad": _without_gradients,
    "without autocast": _without_autocast,
    "its output is used twice": _twice_used,
    "it is added to itself": _with_itself,
    "the sum writes into the other": _into_the_other,
    "twice the other": lambda b, x: F.relu(torch.add(b.norm(b.conv(x)), x, alpha=2)),
    "the norm is called again": _called_again,
    "its input changes": _input_changes,
    "a number is added": lambda b, x: F.relu(b.norm(b.conv(x)) + 1),
    "another activation": lambda b, x: F.gelu(b.norm(b.conv(x))),
    "its class is asked for": _asks_for_the_class,
    "a random number": _draws,
    "a random tensor": _draws_a_tensor,
    "an attribute is set": _keeps_something,
    "a constant": _makes_a_constant,
    "by whether gradients are on": _by_grad_mode,
    "by values": _by_values,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_be_exact_stays(name: str) -> None:
    does, x = REFUSED[name], images(CHANNELS, 5)
    plain = dual(Block(does))
    model = fused(plain)
    (entry,) = fused_norms(model)
    assert entry.norm == "norm" and entry.pattern == "" and entry.why
    assert type(model) is Block and vars(model).keys() == vars(plain).keys()
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(model)(x), copy.deepcopy(plain)(x))
    if does is not _input_changes:  # there is no backward of that
        assert_same(model, plain, x, 2, training=True)
        assert_same(model, plain, x, None, training=False)


def _inplace(b: Any, x: Tensor) -> Any:
    y = b.norm(b.conv(x))
    y += b.shortcut(x)  # the norm has to wait for it
    return F.relu_(y)


def _counts(b: Any, x: Tensor) -> Any:
    b.count.add_(1)
    return F.relu(b.norm(b.conv(x))) + b.count


FUSED = {
    "with a buffer": (_counts, "relu"),
    "a module": (lambda b, x: b.relu(b.norm(b.conv(x))), "relu"),
    "a function": (lambda b, x: F.relu(b.norm(b.conv(x)), inplace=True), "relu"),
    "a method": (lambda b, x: b.norm(b.conv(x)).relu_(), "relu"),
    "a shared module": (lambda b, x: b.relu(b.norm(b.conv(b.relu(x)))), "relu"),
    "in place": (_inplace, "add+relu"),
    "to the other": (lambda b, x: torch.relu(x + b.norm(b.conv(x))), "add+relu"),
    "torch.add": (lambda b, x: F.relu(torch.add(b.norm(b.conv(x)), x)), "add+relu"),
    "its own input": (lambda b, x: F.relu(b.norm(x) + x), "add+relu"),
    "broadcast": (lambda b, x: F.relu(b.norm(b.conv(x)) + x.mean(0, keepdim=True)), "add+relu"),
    "another dtype": (lambda b, x: F.relu(b.norm(b.conv(x)) + x.float()), "add+relu"),
    "by mode": (
        lambda b, x: F.relu(b.norm(b.conv(x)) * 1) if b.training else F.relu(b.norm(b.conv(x)) + x),
        "",  # not in both modes
    ),
}


@pytest.mark.parametrize("name", FUSED)
def test_what_is_fused_is_the_same(name: str) -> None:
    does, pattern = FUSED[name]
    plain, x = dual(Block(does)), images(CHANNELS, 5)
    model = fused(plain)
    assert patterns(model) == {pattern: 1}
    for target in TARGETS:
        for training in (True, False):
            assert_same(model, plain, x, target, training)


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


def basic(**options: Any) -> Any:
    return dual(resnet.BasicBlock(CHANNELS, CHANNELS, **options))


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


def test_half_precision_under_autocast() -> None:
    plain = dual(Block(_inplace)).float()
    model, x = fused(plain), images(CHANNELS, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = model(x), plain(x)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_blocks_that_cannot_be_changed_are_told() -> None:
    own = basic()
    own.forward = own.forward
    graph = symbolic_trace(basic())
    for block in (own, graph):
        convert_dual_norm(block, fuse=True)
        assert all(one.why and not one.pattern for one in fused_norms(block))
    silu: Any = convert_dual_norm(timm.layers.BatchNormAct2d(3, act_layer=nn.SiLU))
    assert "SiLU" in fused_norms(silu)[0].why


def test_the_example_of_the_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "support.md").read_text()
    code, shown = page.split("```python\n")[1].split("```\n\n```text\n")
    exec(code, {})
    assert capsys.readouterr().out == shown.partition("```")[0]
