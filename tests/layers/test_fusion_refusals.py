"""`fuse=True` leaves as it is, and says so, what would not stay exact in one pass."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.nn import functional as F

from entprop_fast import convert_dual_norm
from entprop_fast.layers import fused_norms
from tests.layers.fused_blocks import (
    CHANNELS,
    Block,
    assert_same,
    basic,
    dual,
    fused,
    images,
)


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


def test_blocks_that_cannot_be_changed_are_told() -> None:
    own = basic()
    own.forward = own.forward
    graph = symbolic_trace(basic())
    for block in (own, graph):
        convert_dual_norm(block, fuse=True)
        assert all(one.why and not one.pattern for one in fused_norms(block))
    silu: Any = convert_dual_norm(timm.layers.BatchNormAct2d(3, act_layer=nn.SiLU))
    assert "SiLU" in fused_norms(silu)[0].why
