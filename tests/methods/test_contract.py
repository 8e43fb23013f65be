"""What a call promises about its result, its images and the gradients (SPEC: Methods)."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import Method, StepResult, convert_dual_norm, create_method
from entprop_fast.methods import METHODS
from tests.methods.support import (
    ONE_NORM,
    ROWS,
    WITH_BACKWARD,
    assert_equal,
    batch,
    dual_network,
    generator,
    gradients,
    make,
    parameters,
    plain_network,
)


def with_unused_parameter() -> nn.Module:
    model = dual_network()
    activation = nn.ReLU()
    activation.register_parameter("spare", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    model.relu2 = activation
    return model


@pytest.mark.parametrize("name", METHODS)
def test_result_holds_detached_scalars(name: str) -> None:
    result = make(name)(*batch())
    assert isinstance(result, StepResult)
    assert result._fields == (
        "loss",
        "aux_loss",
        "correct",
        "entropy_selected",
        "entropy_unselected",
    )
    for value in result:
        assert isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad


@pytest.mark.parametrize("name", METHODS)
def test_later_steps_do_not_overwrite_a_result(name: str) -> None:
    method = make(name)
    results = [method(*batch(seed=i)) for i in range(2)]
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


@pytest.mark.parametrize("options", [{}, {"k": 1.0, "n": 3}, {"mixup": 0.0, "k": 1.0}], ids=str)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_images_stay_as_they_are(options: dict[str, Any], requires_grad: bool) -> None:
    images, labels = batch()
    images.requires_grad_(requires_grad)
    before, labels_before = images.detach().clone(), labels.clone()
    make(**options)(images, labels)
    assert_equal([images.detach(), labels], [before, labels_before])
    assert images.grad is None and images.requires_grad == requires_grad


@pytest.mark.parametrize("name", METHODS)
def test_every_pass_is_channels_last_where_the_images_are(name: str) -> None:
    model = dual_network()
    kept: list[bool] = []
    model.register_forward_pre_hook(
        lambda _, given: kept.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    method = make(name, model=model, **({"k": 0.6, "n": 3} if name == "entprop" else {}))
    images, labels = batch()
    method(images.to(memory_format=torch.channels_last), labels)
    assert kept == [True] * (4 if name == "entprop" else len(ROWS[name]))


@pytest.mark.parametrize("equalize", [False, True])
def test_call_is_zero_backward_step(equalize: bool) -> None:
    one, other = (
        make(k=0.6, n=2, equalize=equalize, generator=generator(3), model=dual_network())
        for _ in range(2)
    )
    for i in range(2):
        result = one(*batch(seed=i))
        other.optimizer.zero_grad()
        expected = other.backward(*batch(seed=i))
        other.optimizer.step()
        assert_equal(list(result), list(expected))
        assert_equal(gradients(one.model), gradients(other.model))
        assert_equal(parameters(one.model), parameters(other.model))


@pytest.mark.parametrize("name", WITH_BACKWARD)
def test_backward_does_not_step(name: str) -> None:
    method = make(name)
    before = parameters(method.model)
    method.backward(*batch())
    assert_equal(parameters(method.model), before)
    assert not method.optimizer.state


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
    clean, filled = (make(name, generator=generator(5)) for _ in range(2))
    for parameter in filled.model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    clean(*batch())
    filled(*batch())
    assert_equal(gradients(filled.model), gradients(clean.model))
    assert_equal(parameters(filled.model), parameters(clean.model))


@pytest.mark.parametrize("equalize", [False, True])
def test_a_parameter_that_no_loss_reaches_is_left_alone(equalize: bool) -> None:
    model = with_unused_parameter()
    spare = model.get_parameter("relu2.spare")
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
    class Tempered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return nn.functional.cross_entropy(self.scale * logits, labels, reduction="none")

    def gradient(equalize: bool) -> Tensor:
        model, criterion = dual_network(), Tempered()
        optimizer = torch.optim.SGD([*model.parameters(), criterion.scale], lr=0.1)
        # k = 1: as many auxiliary rows as main ones, so the mean over all is half the sum of means.
        options: dict[str, Any] = {"k": 1.0, "mixup": 0.0, "equalize": equalize}
        create_method("entprop", model, optimizer, criterion=criterion, **options)(*batch())
        assert criterion.scale.grad is not None
        return criterion.scale.grad

    torch.testing.assert_close(gradient(True), gradient(False) / 2, rtol=1e-12, atol=1e-12)
