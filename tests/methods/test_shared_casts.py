"""Weights cast by autocast once a step, not once a pass, with the same bits in all that follows."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.fake_cuda.calls import Call, Calls
from entprop_fast import Method
from entprop_fast.methods import running
from tests.methods import support as s
from tests.methods.cast_models import CHANGES, EVERY, Change, checkpointed, freeze, given, make


@contextlib.contextmanager
def counted_casts() -> Iterator[Counter[int]]:
    """Count how often each parameter is cast to bfloat16, by its id."""
    found: Counter[int] = Counter()

    def seen(call: Call) -> None:
        if call.name == "aten._to_copy" and isinstance(call.args[0], nn.Parameter):
            assert call.result.dtype == torch.bfloat16
            found[id(call.args[0])] += 1

    with Calls(seen):
        yield found


def trained(method: Method, steps: int = 3) -> list[Any]:
    torch.manual_seed(0)
    results = [list(method(*given(method, seed))) for seed in range(steps)]
    return [results, s.everything(method), s.left(method)]


def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass's forward casts for itself, as autocast does by itself."""
    monkeypatch.setattr(running, "casts_kept", lambda device: contextlib.nullcontext())


@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
def test_the_same_bits(monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]) -> None:
    found = trained(make(name, **options))
    apart(monkeypatch)
    s.assert_equal(found, trained(make(name, **options)))


WEIGHTS = ["conv1.weight", "conv2.weight", "conv2.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("name", "options", "passes"),
    [
        ("vanilla", {}, 1),
        ("entprop", {}, 2),
        ("entprop", {"n": 5}, 6),
        ("entprop", {"n": 5, "accumulate": "all"}, 6),
        ("entprop_pipelined", {}, 1),
        ("advprop", {}, 7),
        ("fast_advprop", {}, 3),
    ],
    ids=str,
)
@pytest.mark.parametrize("caller", [False, True])
def test_each_weight_is_cast_once(
    monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], passes: int, caller: bool
) -> None:
    """By the option, or by an autocast of the caller's around the call."""
    method = make(name, amp=None if caller else "bf16", **options)
    weights = {id(method.model.get_parameter(weight)) for weight in WEIGHTS}
    around = torch.autocast("cpu", torch.bfloat16) if caller else contextlib.nullcontext()
    for seed in range(2):
        with around, counted_casts() as casts:
            method(*given(method, seed))
        assert casts == dict.fromkeys(weights, 1)
    apart(monkeypatch)
    with counted_casts() as casts:
        method(*given(method, 2))
    assert casts == ({} if caller else dict.fromkeys(weights, passes))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("options", [{"n": 3}, {"n": 3, "accumulate": "all"}], ids=str)
def test_models(monkeypatch: pytest.MonkeyPatch, change: Change, options: dict[str, Any]) -> None:
    found = trained(make("entprop", change, k=0.5, mixup=0.0, **options))
    apart(monkeypatch)
    s.assert_equal(found, trained(make("entprop", change, k=0.5, mixup=0.0, **options)))


def test_a_reentrant_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """It casts under no_grad, and again in the backward pass; dual norms refuse it.

    Torch keeps the way back to the weight there since pytorch 165068, of December 2025. It holds
    in 2.11 and 2.13.
    """

    def plain() -> list[Any]:
        model = s.plain_network(dtype=torch.float32)
        checkpointed(model, reentrant=True)
        return trained(s.make("vanilla", model=model, amp="bf16"))

    found = plain()
    assert all(gradient is not None for gradient in found[1]["gradients"][0].values())
    apart(monkeypatch)
    s.assert_equal(found, plain())


def test_a_frozen_weight_is_cast_in_each_pass() -> None:
    """Autocast keeps casts of weights that learn alone."""
    method = make("entprop", freeze, n=2)
    with counted_casts() as casts:
        method(*given(method, 0))
    assert casts[id(method.model.get_parameter("conv1.weight"))] == 3


def test_backward_with_several_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call casts anew: the weights may have stepped."""

    def run() -> list[Any]:
        method = make("entprop", n=2)
        for seed in range(4):
            for part, weight in enumerate((0.25, 0.75)):
                with counted_casts() as casts:
                    method.backward(*given(method, 2 * seed + part), weight=weight)
            method.optimizer.step()
            method.optimizer.zero_grad()
        return [s.everything(method), max(casts.values())]

    (found, once) = run()
    apart(monkeypatch)
    (expected, often) = run()
    s.assert_equal(found, expected)
    assert (once, often) == (1, 3)


def test_weights_that_step_under_one_autocast_of_the_callers() -> None:
    """Around the whole loop, autocast by itself would go on with the first step's casts."""
    one, other = make("entprop", amp=None, n=2), make("entprop", amp=None, n=2)
    with torch.autocast("cpu", torch.bfloat16):
        F.linear(torch.ones(1, 6), one.model.get_parameter("head.weight"))
        with torch.no_grad():
            for method in (one, other):
                method.model.get_parameter("head.weight").mul_(2)
        together = [list(one(*given(one, seed))) for seed in range(3)]
    for seed in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            s.assert_equal(list(other(*given(other, seed))), together[seed])
    s.assert_equal(s.everything(one), s.everything(other))


@pytest.mark.parametrize("caller", [False, True])
def test_autocast_is_as_it_was(caller: bool) -> None:
    """After a step and after an error, the next block of autocast casts for itself."""
    method = make("entprop", n=2)
    weight = method.model.get_parameter("head.weight")
    around = torch.autocast("cpu", torch.bfloat16) if caller else contextlib.nullcontext()

    def fails(images: Tensor) -> Tensor:
        F.linear(images.mean((2, 3)), torch.ones(5, 3, requires_grad=True))
        raise ZeroDivisionError

    with around:
        method(*given(method, 0))
        with torch.no_grad():
            weight.fill_(3)
        with torch.autocast("cpu", torch.bfloat16):
            assert F.linear(torch.ones(1, 6), weight).eq(18).all()
        method.model.forward = fails
        with pytest.raises(ZeroDivisionError):
            method(*given(method, 1))
        assert torch.is_autocast_enabled("cpu") is caller
    with torch.no_grad():
        weight.fill_(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert F.linear(torch.ones(1, 6), weight).eq(12).all()
    assert torch.autocast_increment_nesting() == 1 and torch.autocast_decrement_nesting() == 0
