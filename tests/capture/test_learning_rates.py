"""A learning rate is copied into the graph's tensor; the optimiser keeps its captured form."""

from typing import Any

import pytest
import torch
from torch import nn

from entprop_fast import Method
from entprop_fast.capture.optimizer import CapturableForm
from tests.capture.recording import RecordingGraphs
from tests.capture.support import Change, MakeOptimizer, Twins, adam, adamw, group, sgd


def _fill(method: Method) -> None:
    lr = method.optimizer.param_groups[0]["lr"]
    assert isinstance(lr, torch.Tensor)
    lr.fill_(0.03)


@pytest.mark.parametrize("optimizer", [sgd, adam, adamw])
@pytest.mark.parametrize(
    "change",
    [group(lr=0.03), group(lr=torch.tensor(0.03, dtype=torch.float64)), _fill],
    ids=["float", "replaced", "filled"],
)
def test_a_learning_rate_takes_effect_without_a_capture(
    recorder: RecordingGraphs, change: Change, optimizer: MakeOptimizer
) -> None:
    twins = Twins(recorder, optimizer=optimizer)
    twins.step(4)
    twins.said()
    twins.both(change)
    twins.step(2)
    assert twins.said() == "rr"
    assert twins.captured.optimizer.param_groups[0]["lr"].item() == pytest.approx(0.03)


def test_torchs_schedulers(recorder: RecordingGraphs) -> None:
    """One wraps `optimizer.step` and multiplies the lr, which by then is a tensor."""
    twins = Twins(recorder)
    schedulers = [
        torch.optim.lr_scheduler.CosineAnnealingLR(method.optimizer, 10)
        for method in (twins.captured, twins.eager)
    ]
    for _ in range(6):
        twins.step()
        for scheduler in schedulers:
            scheduler.step()
    assert twins.said() == "eeec" + "r" * 3


def test_groups(recorder: RecordingGraphs) -> None:
    """They have learning rates of their own, though given one tensor; a parameter may move."""

    def two_groups(model: nn.Module) -> torch.optim.Optimizer:
        parameters = list(model.parameters())
        groups: list[dict[str, Any]] = [
            {"params": parameters[:5]},
            {"params": parameters[5:], "weight_decay": 0.5},
        ]
        return torch.optim.SGD(groups, lr=torch.tensor(0.1), momentum=0.9, fused=True)

    def move(method: Method) -> None:
        first, second = method.optimizer.param_groups
        second["params"].insert(0, first["params"].pop())

    twins = Twins(recorder, optimizer=two_groups)
    twins.step(4)
    twins.both(lambda method: method.optimizer.param_groups[1].update(lr=0.5))
    twins.step(2)
    assert twins.said() == "eeec" + "r" * 3
    twins.both(move)
    twins.step(2)
    assert twins.said() == "ecr"


def test_the_users_own_tensor_is_the_captured_one(recorder: RecordingGraphs) -> None:
    rates: list[torch.Tensor] = []

    def own(model: nn.Module) -> torch.optim.Optimizer:
        rates.append(torch.tensor(0.1))
        return torch.optim.SGD(model.parameters(), lr=rates[-1], fused=True)

    twins = Twins(recorder, optimizer=own)
    twins.step(4)
    for rate in rates:
        rate.fill_(0.01)
    twins.step(2)
    assert twins.said() == "eeec" + "r" * 3
    assert twins.captured.optimizer.param_groups[0]["lr"] is rates[0]


@pytest.mark.parametrize("optimizer", [adam, adamw])
def test_counters_move_to_the_device(optimizer: MakeOptimizer) -> None:
    """Adam counts on the host until it is captured, also after a plain state was loaded."""
    weight = nn.Linear(2, 2)
    held = optimizer(weight)
    for parameter in weight.parameters():
        parameter.grad = torch.ones_like(parameter)
    held.step()
    CapturableForm(held, torch.device("meta")).restore()
    assert {state["step"].device.type for state in held.state.values()} == {"meta"}
    assert held.param_groups[0]["lr"].device.type == "meta"
