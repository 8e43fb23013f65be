"""The step under other optimizers, autocast, checkpointing and torch.compile; and the reference."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from entprop_fast import create_method
from entprop_fast.methods import METHODS
from entprop_fast.reference import entprop_step
from tests.methods.support import (
    ROWS,
    assert_equal,
    batch,
    dual_network,
    generator,
    gradients,
    make,
    parameters,
    sgd,
    statistics,
)

OPTIMIZERS: list[Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=5e-4),
    lambda p: torch.optim.AdamW(p, lr=1e-2),
]


def close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimizer", range(len(OPTIMIZERS)))
@pytest.mark.parametrize("name", METHODS)
def test_any_optimizer_takes_one_step_with_the_gradients(name: str, optimizer: int) -> None:
    model, by_torch = dual_network(), dual_network()
    own, other = (OPTIMIZERS[optimizer](list(m.parameters())) for m in (model, by_torch))
    options: dict[str, Any] = {"replays": 1} if name == "free_at" else {}
    method = create_method(name, model, own, generator=generator(5), **options)
    for i in range(2):
        method(*batch(seed=i))
        for key, gradient in gradients(model).items():
            by_torch.get_parameter(key).grad = gradient
        other.step()
        assert_equal(parameters(model), parameters(by_torch))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("k", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_the_method_equals_the_reference_step(k: float, n: int, mixup: float) -> None:
    method, model = make(k=k, n=n, mixup=mixup, generator=generator(5)), dual_network()
    optimizer, source = sgd(model), generator(5)
    for i in range(4):
        result = method(*batch(seed=i))
        losses = entprop_step(
            model, optimizer, *batch(seed=i), k=k, n=n, mixup=mixup, generator=source
        )
        close({"main": result.loss, "aux": result.aux_loss}, {"main": losses[0], "aux": losses[1]})
    close(parameters(method.model), parameters(model))
    close(statistics(method.model), statistics(model))


class Watch(nn.Module):
    """Notes the dtype of what passes through."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.dtype)
        return x


@pytest.mark.parametrize("name", METHODS)
def test_bf16_autocast_in_every_forward(name: str) -> None:
    model, watch = dual_network(dtype=torch.float32), Watch()
    model.relu2 = nn.Sequential(watch, nn.ReLU())
    method = make(name, model=model, amp="bf16")
    before = parameters(model)
    result = method(*batch(dtype=torch.float32))
    assert watch.seen == [torch.bfloat16] * len(ROWS[name])
    assert result.loss.dtype == torch.float32 and result.loss.isfinite()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not torch.equal(model.get_parameter("conv1.weight"), before["conv1.weight"])
    assert not torch.is_autocast_enabled("cpu")


def test_without_amp_the_callers_autocast_holds() -> None:
    model, watch = dual_network(dtype=torch.float32), Watch()
    model.relu2 = nn.Sequential(watch, nn.ReLU())
    with torch.autocast("cpu", torch.bfloat16):
        make(model=model)(*batch(dtype=torch.float32))
    assert watch.seen == [torch.bfloat16] * 2


def test_the_callers_autocast_to_float16_is_refused() -> None:
    method, taken = make(model=dual_network(dtype=torch.float32)), batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.float16):
        for call in (method, method.backward):
            with pytest.raises(ValueError, match=r"autocast to float16 .*loss scaling.*bfloat16"):
                call(*taken)
        make(model=dual_network(dtype=torch.float32), amp="bf16")(*taken)  # its own goes before it


class Checkpointed(nn.Module):
    """Computes the activations of its body again in the backward pass."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(self.body, x, use_reentrant=False)
        return y


KN: dict[str, Any] = {"k": 0.6, "n": 3}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("entprop", KN | {"accumulate": "all"}),
        ("entprop", KN | {"aux_stats": "every"}),
        ("entprop", KN | {"equalize": True}),
        ("entprop", KN | {"attack_loss": "trades"}),
        ("advprop", {"attack_mode": "eval"}),
        *((name, {}) for name, cls in METHODS.items() if cls.needs_dual_norms),
    ],
    ids=str,
)
def test_checkpointing_changes_nothing(name: str, options: dict[str, Any]) -> None:
    if name == "entprop":
        options = KN | options
    plain, body = dual_network(), dual_network()
    one = make(name, model=plain, generator=generator(5), **options)
    other = make(name, model=Checkpointed(body), generator=generator(5), **options)
    for i in range(2):
        assert_equal(list(one(*batch(seed=i))), list(other(*batch(seed=i))))
    assert_equal(parameters(body), parameters(plain))
    assert_equal(statistics(body), statistics(plain))


@pytest.mark.parametrize("name", METHODS)
def test_compiling_the_model_changes_nothing(name: str) -> None:
    options: dict[str, Any] = {"k": 0.6, "n": 2} if name == "entprop" else {}
    plain, body = dual_network(), dual_network()
    torch.compiler.reset()
    compiled: Any = torch.compile(body, backend="eager")
    one = make(name, model=plain, generator=generator(5), **options)
    other = make(name, model=compiled, generator=generator(5), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, while it traces
        for i in range(2):
            assert_equal(list(one(*batch(seed=i))), list(other(*batch(seed=i))))
    close(parameters(body), parameters(plain))
    close(statistics(body), statistics(plain))
