"""The step under other optimizers, autocast, checkpointing and torch.compile; and the reference."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from entprop_fast import create_method
from entprop_fast.methods import METHODS
from entprop_fast.reference import entprop_step
from tests.methods import support as s

OPTIMIZERS: list[Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=5e-4),
    lambda p: torch.optim.AdamW(p, lr=1e-2),
]


@pytest.mark.parametrize("optimizer", range(len(OPTIMIZERS)))
@pytest.mark.parametrize("name", METHODS)
def test_any_optimizer_takes_one_step_with_the_gradients(name: str, optimizer: int) -> None:
    model, by_torch = s.dual_network(), s.dual_network()
    own, other = (OPTIMIZERS[optimizer](list(m.parameters())) for m in (model, by_torch))
    options: dict[str, Any] = {"replays": 1} if name == "free_at" else s.ONE_VIEW.get(name, {})
    method = create_method(name, model, own, generator=s.generator(5), **options)
    for i in range(2):
        method(*s.batch(seed=i))
        for key, gradient in s.gradients(model).items():
            by_torch.get_parameter(key).grad = gradient
        other.step()
        s.assert_equal(s.parameters(model), s.parameters(by_torch))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("k", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_the_method_equals_the_reference_step(k: float, n: int, mixup: float) -> None:
    method, model = s.make(k=k, n=n, mixup=mixup, generator=s.generator(5)), s.dual_network()
    optimizer, source = s.sgd(model), s.generator(5)
    for i in range(4):
        result = method(*s.batch(seed=i))
        losses = entprop_step(
            model, optimizer, *s.batch(seed=i), k=k, n=n, mixup=mixup, generator=source
        )
        s.close([result.loss, result.aux_loss], list(losses))
    s.close(s.parameters(method.model), s.parameters(model))
    s.close(s.statistics(method.model), s.statistics(model))


def watched() -> tuple[nn.Module, list[torch.dtype]]:
    """A float32 network, and the dtypes that pass its second ReLU."""
    model, seen = s.dual_network(dtype=torch.float32), list[torch.dtype]()
    model.get_submodule("relu2").register_forward_pre_hook(
        lambda _, given: seen.append(given[0].dtype)
    )
    return model, seen


@pytest.mark.parametrize("name", METHODS)
def test_bf16_autocast_in_every_forward(name: str) -> None:
    model, seen = watched()
    method = s.make(name, model=model, amp="bf16")
    before = s.parameters(model)
    result = method(*s.batch(dtype=torch.float32))
    assert seen == [torch.bfloat16] * len(s.ROWS[name])
    assert result.loss.dtype == torch.float32 and result.loss.isfinite()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not torch.equal(model.get_parameter("conv1.weight"), before["conv1.weight"])
    assert not torch.is_autocast_enabled("cpu")


def test_without_amp_the_callers_autocast_holds() -> None:
    model, seen = watched()
    with torch.autocast("cpu", torch.bfloat16):
        s.make(model=model)(*s.batch(dtype=torch.float32))
    assert seen == [torch.bfloat16] * 2


def test_the_callers_autocast_to_float16_is_refused() -> None:
    method, taken = s.make(model=s.dual_network(dtype=torch.float32)), s.batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.float16):
        for call in (method, method.backward):
            with pytest.raises(ValueError, match=r"autocast to float16"):
                call(*taken)
        s.make(model=s.dual_network(dtype=torch.float32), amp="bf16")(
            *taken
        )  # its own goes before it


def checkpointed() -> nn.Module:
    """Computes the activations again in the backward pass."""
    body = s.dual_network()
    model = s.Lambda(lambda x: checkpoint(body, x, use_reentrant=False))
    model.body = body
    return model


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("entprop", s.KN | {"accumulate": "all"}),
        ("entprop", s.KN | {"aux_stats": "every"}),
        ("entprop", s.KN | {"equalize": True}),
        ("entprop", s.KN | {"attack_loss": "trades"}),
        ("advprop", {"attack_mode": "eval"}),
        *((name, {}) for name, cls in METHODS.items() if cls.needs_dual_norms),
    ],
    ids=str,
)
def test_checkpointing_changes_nothing(name: str, options: dict[str, Any]) -> None:
    if name == "entprop":
        options = s.KN | options
    s.assert_same_steps(*s.pair(name, s.dual_network(), checkpointed(), **options))


@pytest.mark.parametrize("name", ["entprop", "entprop_pipelined", "advprop", "vanilla"])
def test_compiling_the_model_changes_nothing(name: str) -> None:
    options: dict[str, Any] = {"k": 0.6, "n": 2} if name == "entprop" else {}
    torch.compiler.reset()
    compiled: Any = torch.compile(s.dual_network(), backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, while it traces
        s.assert_same_steps(*s.pair(name, s.dual_network(), compiled, **options), 1e-12)
