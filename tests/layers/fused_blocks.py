"""Blocks with dual norms, plain and fused, and all that a pass through them leaves behind."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from entprop_fast import convert_dual_norm, route
from entprop_fast.layers import fused_norms
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


def basic(**options: Any) -> Any:
    return dual(resnet.BasicBlock(CHANNELS, CHANNELS, **options))
