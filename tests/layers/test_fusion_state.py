"""`fuse=True` on blocks that depend on more than their tensors: exact, or not fused.

Every case is changed after the conversion, in the plain model and in the fused one alike.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast.layers import fused_norms
from tests.layers.fused_blocks import CHANNELS, Block, dual, fused, images

CONFIG = SimpleNamespace(scale=1.0)
NUMBER = 1.0
SETTINGS: dict[str, float] = {"scale": 1.0}
CALLS: list[int] = []


class Switched(Block):
    """A block with every kind of switch."""

    K = 1.0

    def __init__(self, does: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__(does)
        self.drop = nn.Dropout(0.0)
        self.inner = nn.Sequential(nn.Dropout(0.0))
        self.cfg = {"scale": 1.0}
        self.numbers = [1.0]
        self.nested = ([1.0],)
        self.plain = torch.ones(())

    @property
    def wide(self) -> float:
        return self.numbers[0]


def once(b: Any, x: Tensor) -> Any:
    return F.relu(b.norm(b.conv(x)))


def _by_mode_of(name: str) -> Callable[[Any, Tensor], Any]:
    if name == "norm":
        return lambda b, x: once(b, x) if b.norm.training else once(b, x) * 2
    return lambda b, x: once(b, x) if b.conv.training else once(b, x) * 2


def _drops(b: Any, x: Tensor) -> Any:
    y = once(b, x)
    return y * 2 if b.drop.p > 0 else y


def _counts(b: Any, x: Tensor) -> Any:
    CALLS.append(1)
    return once(b, x)


def _counts_itself(b: Any, x: Tensor) -> Any:
    CONFIG.calls = getattr(CONFIG, "calls", 0) + 1
    return once(b, x)


def _swallows(b: Any, x: Tensor) -> Any:
    try:
        return once(b, x) if bool(x.sum() > 0) else once(b, x) * 2
    except Exception:
        return once(b, x) * 3


def _set(**values: Any) -> Callable[[Any], None]:
    def change(b: Any) -> None:
        for path, value in values.items():
            owner = functools.reduce(getattr, path.split("__")[:-1], b)
            setattr(owner, path.split("__")[-1], value)

    return change


def _item(name: str, key: Any) -> Callable[[Any], None]:
    def change(b: Any) -> None:
        getattr(b, name)[key] = 3.0

    return change


STATES: dict[str, tuple[Callable[[Any, Tensor], Any], Callable[[Any], None]]] = {
    "a mode of a norm": (_by_mode_of("norm"), lambda b: b.norm.eval()),
    "a mode of a layer": (_by_mode_of("conv"), lambda b: b.conv.eval()),
    "a dropout": (_drops, _set(drop__p=0.5)),
    "a dropout deeper": (
        lambda b, x: once(b, x) * (1 + b.inner[0].p),
        lambda b: setattr(b.inner[0], "p", 0.5),
    ),
    "another dropout deeper": (
        lambda b, x: once(b, x) * (1 + b.inner[0].p),
        lambda b: b.inner.__setitem__(0, nn.Dropout(0.5)),
    ),
    "an activation": (
        lambda b, x: once(b, x) * (1 if b.relu.inplace else 2),
        _set(relu__inplace=True),
    ),
    "a momentum": (lambda b, x: once(b, x) * b.norm.momentum, _set(norm__momentum=0.5)),
    "no bias": (
        lambda b, x: once(b, x) * (2 if b.shortcut.bias is None else 1),
        _set(shortcut__bias=None),
    ),
    "a class attribute": (lambda b, x: once(b, x) * b.K, lambda b: setattr(Switched, "K", 3.0)),
    "a class attribute, covered": (lambda b, x: once(b, x) * b.K, _set(K=3.0)),
    "a dict": (lambda b, x: once(b, x) * b.cfg["scale"], _item("cfg", "scale")),
    "a list": (lambda b, x: once(b, x) * b.numbers[0], _item("numbers", 0)),
    "a property": (lambda b, x: once(b, x) * b.wide, _item("numbers", 0)),
    "a list in a tuple": (
        lambda b, x: once(b, x) * b.nested[0][0],
        lambda b: b.nested[0].__setitem__(0, 3.0),
    ),
    "a tensor": (
        lambda b, x: once(b, x) * (1 if b.plain > 0 else 2),
        lambda b: b.plain.fill_(-1.0),
    ),
    "getattr": (lambda b, x: once(b, x) * getattr(b.drop, "extra", 1), _set(drop__extra=3.0)),
    "vars": (lambda b, x: once(b, x) * (1 + vars(b.drop)["p"]), _set(drop__p=0.5)),
    "a dictionary of attributes": (
        lambda b, x: once(b, x) * (1 + b.drop.__dict__["p"]),
        _set(drop__p=0.5),
    ),
    "hooks": (
        lambda b, x: once(b, x) * (1 + len(b.shortcut._forward_hooks)),
        lambda b: b.shortcut.register_forward_hook(lambda *_: None),
    ),
    "children": (
        lambda b, x: once(b, x) * (1 + len(list(b.inner.children()))),
        lambda b: b.inner.append(nn.Identity()),
    ),
    "a module of settings": (
        lambda b, x: once(b, x) * CONFIG.scale,
        lambda b: setattr(CONFIG, "scale", 3.0),
    ),
    "a global dict": (
        lambda b, x: once(b, x) * SETTINGS["scale"],
        lambda b: SETTINGS.update(scale=3.0),
    ),
    "a global number": (
        lambda b, x: once(b, x) * NUMBER,
        lambda b: globals().update(NUMBER=3.0),
    ),
    "deterministic algorithms": (
        lambda b, x: once(b, x) * (2 if torch.are_deterministic_algorithms_enabled() else 1),
        lambda b: torch.use_deterministic_algorithms(True),
    ),
    "another default dtype": (
        lambda b, x: once(b, x) * (2 if torch.get_default_dtype() == torch.float64 else 1),
        lambda b: torch.set_default_dtype(torch.float64),
    ),
    "a swallowed error": (_swallows, lambda b: None),
}


@pytest.fixture
def switches() -> Any:
    """Put back what a case switched."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_default_dtype(torch.float32)
    Switched.K, CONFIG.scale, SETTINGS["scale"] = 1.0, 1.0, 1.0
    globals().update(NUMBER=1.0)
    CALLS.clear()


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", STATES)
def test_what_changes_later_is_seen(name: str, training: bool) -> None:
    does, change = STATES[name]
    plain, x = dual(Switched(does)).train(training), images(CHANNELS, 5)
    model = fused(plain)
    twin = copy.deepcopy(model)
    assert torch.equal(copy.deepcopy(model)(x), copy.deepcopy(plain)(x))
    change(plain)
    expected = plain(x)
    if plain.K == 1.0 and NUMBER == CONFIG.scale == SETTINGS["scale"] == 1.0:
        change(twin)
        assert torch.equal(twin(x), expected)
    change(model)
    assert torch.equal(model(x), expected)


@pytest.mark.usefixtures("switches")
def test_a_forward_that_counts_its_calls_goes_on_counting() -> None:
    plain, x = dual(Switched(_counts)), images(CHANNELS, 5)
    model = fused(plain)
    CALLS.clear()
    model(x)
    assert CALLS == [1] and fused_norms(model)[0].why
    model = fused(dual(Switched(_counts_itself)))
    CONFIG.calls = 0
    model(x)
    assert CONFIG.calls == 1


def _inner_gradients(b: Any, x: Tensor) -> Any:
    with torch.no_grad():
        y = once(b, x)
    return y + x


def _inference(b: Any, x: Tensor) -> Any:
    if torch.is_inference_mode_enabled():
        return once(b, x) * 2
    return once(b, x)


def _other_type(b: Any, x: Tensor) -> Any:
    with warnings.catch_warnings():
        return once(b, x)


class Decorated(Block):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = once(self, x)
        return y


CONTEXTS = {
    "no gradients inside": Block(_inner_gradients),
    "by inference mode": Block(_inference),
    "another context": Block(_other_type),
    "a decorator": Decorated(once),
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_contexts_stay(name: str) -> None:
    plain, x = dual(CONTEXTS[name]), images(CHANNELS, 5).requires_grad_()
    model = fused(plain)
    assert fused_norms(model)[0].why
    found, expected = model(x), plain(x)
    assert found.requires_grad == expected.requires_grad and torch.equal(found, expected)
    with torch.inference_mode():
        assert torch.equal(copy.deepcopy(model)(x), copy.deepcopy(plain)(x))


def _helped(b: Any, x: Tensor) -> Any:
    return F.relu(_convolved(b, x)) if b.flag and hasattr(b, "relu") else x


def _convolved(b: Any, x: Tensor) -> Any:
    return b.norm(b.conv(x)) + torch.cat([x[:, :4], x[:, 4:]], 1).flip(0)


@pytest.mark.parametrize(
    "does", [_helped, lambda b, x: F.dropout(once(b, x), 0.0, b.training)], ids=["helper", "mode"]
)
def test_what_only_computes_is_fused(does: Any) -> None:
    plain, x = dual(Block(does)), images(CHANNELS, 5)
    model = fused(plain)
    assert fused_norms(model)[0].pattern
    for training in (True, False):
        found, expected = (copy.deepcopy(m).train(training)(x) for m in (model, plain))
        assert torch.equal(found, expected)
