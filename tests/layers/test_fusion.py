"""`convert_dual_norm(fuse=True)`: the same values in one pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import regnet as timm_regnet
from timm.models import resnet as timm_resnet
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import densenet, resnet

from entprop_fast import strip_auxiliary
from tests.layers.fused_blocks import (
    CHANNELS,
    TARGETS,
    Block,
    assert_same,
    dual,
    fused,
    images,
    patterns,
)

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


def test_half_precision_under_autocast() -> None:
    plain = dual(Block(_inplace)).float()
    model, x = fused(plain), images(CHANNELS, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = model(x), plain(x)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_the_example_of_the_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "support.md").read_text()
    code, shown = page.split("```python\n")[1].split("```\n\n```text\n")
    exec(code, {})
    assert capsys.readouterr().out == shown.partition("```")[0]
