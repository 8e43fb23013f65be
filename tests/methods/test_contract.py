"""What a call promises about its result, its images and the gradients (SPEC: Methods)."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import Method, StepResult, convert_dual_norm, create_method
from entprop_fast.methods import METHODS
from tests.methods.support import (
    KN,
    ONE_NORM,
    WITH_BACKWARD,
    Counts,
    assert_equal,
    assert_same_steps,
    batch,
    dual_network,
    everything,
    generator,
    make,
    pair,
    parameters,
    plain_network,
)


@pytest.mark.parametrize("name", METHODS)
def test_results_are_detached_scalars_that_later_steps_leave_alone(name: str) -> None:
    method = make(name)
    results = [method(*batch(seed=i)) for i in range(2)]
    for result in results:
        assert isinstance(result, StepResult)
        for value in result:
            assert isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad
    kept = [value.clone() for result in results for value in result]
    method(*batch(seed=2))
    assert_equal([value for result in results for value in result], kept)
    assert results[0].loss != results[1].loss


@pytest.mark.parametrize("name", METHODS)
def test_nan_is_returned(name: str) -> None:
    model = dual_network()
    with torch.no_grad():
        model.get_parameter("head.bias").fill_(math.nan)
    assert math.isnan(make(name, model=model)(*batch()).loss)


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in WITH_BACKWARD), ("entprop", KN | {"equalize": True})],
    ids=str,
)
def test_call_is_zero_backward_step(name: str, options: dict[str, Any]) -> None:
    one, other = pair(name, **options)
    for i in range(2):
        result = one(*batch(seed=i))
        other.optimizer.zero_grad()
        before = parameters(other.model)
        assert_equal(list(other.backward(*batch(seed=i))), list(result))
        assert_equal(parameters(other.model), before)
        other.optimizer.step()
        assert_equal(everything(one), everything(other))


@pytest.mark.parametrize("options", [{}, {"equalize": True}, {"accumulate": "all"}], ids=str)
def test_backward_adds_to_existing_gradients(options: dict[str, Any]) -> None:
    def of(model: nn.Module) -> Method:
        return make(model=model, k=0.6, n=2, mixup=0.0, **options)

    once, filled = dual_network(), dual_network()
    of(once).backward(*batch())
    for parameter in filled.parameters():
        parameter.grad = torch.full_like(parameter, 0.25)
    of(filled).backward(*batch())
    for name, parameter in once.named_parameters():
        assert parameter.grad is not None
        added = filled.get_parameter(name).grad
        torch.testing.assert_close(added, parameter.grad + 0.25, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_discards_existing_gradients(name: str) -> None:
    clean, filled = pair(name)
    for parameter in filled.model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    assert_same_steps(clean, filled)


@pytest.mark.parametrize("equalize", [False, True])
def test_a_parameter_that_no_loss_reaches_is_left_alone(equalize: bool) -> None:
    model = dual_network()
    spare = nn.Parameter(torch.ones(3, dtype=torch.float64))
    model.get_submodule("relu2").register_parameter("spare", spare)
    spare.grad = torch.ones_like(spare)
    make(model=model, equalize=equalize)(*batch())
    assert spare.grad is None
    assert_equal(spare.detach(), torch.ones_like(spare))  # weight decay would have moved it
    assert all(p.grad is not None for p in model.parameters() if p is not spare)


@pytest.mark.usefixtures("plain_pytorch")
@pytest.mark.parametrize("name", ONE_NORM)
def test_one_norm_methods_train_plain_networks(name: str) -> None:
    plain, dual = plain_network(), convert_dual_norm(plain_network())
    results = [make(name, model=model, generator=generator(5))(*batch()) for model in (plain, dual)]
    assert_equal(list(results[0]), list(results[1]))
    for key, value in plain.state_dict().items():
        assert_equal(value, dual.state_dict()[key])


def test_equalize_divides_the_gradients_of_the_criterion_too() -> None:
    def gradient(equalize: bool) -> Tensor:
        model, criterion = dual_network(), Counts("none")
        optimizer = torch.optim.SGD([*model.parameters(), criterion.scale], lr=0.1)
        # k = 1: as many auxiliary rows as main ones, so the mean over all is half the sum of means.
        options: dict[str, Any] = {"k": 1.0, "mixup": 0.0, "equalize": equalize}
        create_method("entprop", model, optimizer, criterion=criterion, **options)(*batch())
        assert criterion.scale.grad is not None
        return criterion.scale.grad

    torch.testing.assert_close(gradient(True), gradient(False) / 2, rtol=1e-12, atol=1e-12)
