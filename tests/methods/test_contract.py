"""What a call promises about its result, its images and the gradients (SPEC: Methods)."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import Method, StepResult, convert_dual_norm, create_method
from entprop_fast.methods import METHODS
from tests.methods import support as s


@pytest.mark.parametrize("name", METHODS)
def test_results_are_detached_scalars_that_later_steps_leave_alone(name: str) -> None:
    method = s.make(name)
    results = [method(*s.batch(seed=i)) for i in range(2)]
    for result in results:
        assert isinstance(result, StepResult)
        for value in result:
            assert isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad
    kept = [value.clone() for result in results for value in result]
    method(*s.batch(seed=2))
    s.assert_equal([value for result in results for value in result], kept)
    assert results[0].loss != results[1].loss


@pytest.mark.parametrize("name", METHODS)
def test_nan_is_returned(name: str) -> None:
    model = s.dual_network()
    with torch.no_grad():
        model.get_parameter("head.bias").fill_(math.nan)
    assert math.isnan(s.make(name, model=model)(*s.batch()).loss)


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in s.WITH_BACKWARD), ("entprop", s.KN | {"equalize": True})],
    ids=str,
)
def test_call_is_zero_backward_step(name: str, options: dict[str, Any]) -> None:
    one, other = s.pair(name, **options)
    for i in range(2):
        result = one(*s.batch(seed=i))
        other.optimizer.zero_grad()
        before = s.parameters(other.model)
        s.assert_equal(list(other.backward(*s.batch(seed=i))), list(result))
        s.assert_equal(s.parameters(other.model), before)
        other.optimizer.step()
        s.assert_equal(s.everything(one), s.everything(other))


@pytest.mark.parametrize("options", [{}, {"equalize": True}, {"accumulate": "all"}], ids=str)
def test_backward_adds_to_existing_gradients(options: dict[str, Any]) -> None:
    def of(model: nn.Module) -> Method:
        return s.make(model=model, k=0.6, n=2, mixup=0.0, **options)

    once, filled = s.dual_network(), s.dual_network()
    of(once).backward(*s.batch())
    for parameter in filled.parameters():
        parameter.grad = torch.full_like(parameter, 0.25)
    of(filled).backward(*s.batch())
    for name, parameter in once.named_parameters():
        assert parameter.grad is not None
        added = filled.get_parameter(name).grad
        torch.testing.assert_close(added, parameter.grad + 0.25, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"), [case for case in s.EVERY if case[0] != "free_at"], ids=str
)
def test_a_weight_scales_the_gradients_and_nothing_else(name: str, options: dict[str, Any]) -> None:
    whole, part = s.pair(name, **options)
    for i in range(2):
        results = [
            list(method.backward(*s.batch_for(method, seed=i), weight=weight))
            for method, weight in ((whole, 1.0), (part, 0.25))
        ]
        s.assert_equal(*results)  # a power of two: to the bit
    s.assert_equal(s.statistics(part.model), s.statistics(whole.model))
    s.assert_equal([part.selected_index, part.perturbed], [whole.selected_index, whole.perturbed])
    scaled = {key: g if g is None else g / 4 for key, g in s.gradients(whole.model).items()}
    s.close(s.gradients(part.model), scaled)


@pytest.mark.parametrize("weight", [0, -1.0, math.inf, math.nan, True, "1", None, torch.ones(())])
def test_weights_that_are_none(weight: Any) -> None:
    method = s.make()
    before = s.everything(method)
    with pytest.raises((ValueError, TypeError), match=r"^weight"):
        method.backward(*s.batch(), weight=weight)
    s.assert_equal(s.everything(method), before)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_discards_existing_gradients(name: str) -> None:
    clean, filled = s.pair(name)
    for parameter in filled.model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    s.assert_same_steps(clean, filled)


@pytest.mark.parametrize("equalize", [False, True])
def test_a_parameter_that_no_loss_reaches_is_left_alone(equalize: bool) -> None:
    model = s.dual_network()
    spare = nn.Parameter(torch.ones(3, dtype=torch.float64))
    model.get_submodule("relu2").register_parameter("spare", spare)
    spare.grad = torch.ones_like(spare)
    s.make(model=model, equalize=equalize)(*s.batch())
    assert spare.grad is None
    s.assert_equal(spare.detach(), torch.ones_like(spare))  # weight decay would have moved it
    assert all(p.grad is not None for p in model.parameters() if p is not spare)


@pytest.mark.usefixtures("plain_pytorch")
@pytest.mark.parametrize("name", s.ONE_NORM)
def test_one_norm_methods_train_plain_networks(name: str) -> None:
    plain, dual = s.plain_network(), convert_dual_norm(s.plain_network())
    results = [
        s.make(name, model=model, generator=s.generator(5))(*s.batch()) for model in (plain, dual)
    ]
    s.assert_equal(list(results[0]), list(results[1]))
    for key, value in plain.state_dict().items():
        s.assert_equal(value, dual.state_dict()[key])


def test_equalize_divides_the_gradients_of_the_criterion_too() -> None:
    def gradient(equalize: bool) -> Tensor:
        model, criterion = s.dual_network(), s.Counts("none")
        optimizer = torch.optim.SGD([*model.parameters(), criterion.scale], lr=0.1)
        # k = 1: as many auxiliary rows as main ones, so the mean over all is half the sum of means.
        options: dict[str, Any] = {"k": 1.0, "mixup": 0.0, "equalize": equalize}
        create_method("entprop", model, optimizer, criterion=criterion, **options)(*s.batch())
        assert criterion.scale.grad is not None
        return criterion.scale.grad

    torch.testing.assert_close(gradient(True), gradient(False) / 2, rtol=1e-12, atol=1e-12)
