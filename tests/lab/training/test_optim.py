from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from entprop_fast.lab.training.optim import create_optimizer, learning_rate, set_learning_rate

EPOCHS, STEPS_PER_EPOCH, PEAK = 12, 7, 0.3
STEPS = EPOCHS * STEPS_PER_EPOCH


def rates_of_torch(
    make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler],
) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule, rates = make(optimizer), []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def rates_of_ours(schedule: str, **options: float) -> list[float]:
    lr = learning_rate(schedule, peak=PEAK, steps=STEPS, steps_per_epoch=STEPS_PER_EPOCH, **options)  # type: ignore[arg-type]
    return [lr(step) for step in range(STEPS)]


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.5])
def test_onecycle_is_torchs(warmup: float) -> None:
    theirs = rates_of_torch(
        lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer, PEAK, total_steps=STEPS, pct_start=warmup, cycle_momentum=False
        )
    )
    assert rates_of_ours("onecycle", warmup=warmup) == pytest.approx(theirs, rel=1e-12)


def test_step_is_torchs_stepped_once_an_epoch() -> None:
    theirs = rates_of_torch(
        lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=5 * STEPS_PER_EPOCH, gamma=0.1)
    )
    assert rates_of_ours("step", decay_every=5) == pytest.approx(theirs, rel=1e-12)


def test_cosine_is_torchs_stepped_once_an_epoch() -> None:
    by_epoch = [PEAK * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in range(EPOCHS)]
    ours = rates_of_ours("cosine")
    assert ours[::STEPS_PER_EPOCH] == pytest.approx(by_epoch, rel=1e-12)
    assert ours[STEPS_PER_EPOCH : 2 * STEPS_PER_EPOCH] == [ours[STEPS_PER_EPOCH]] * STEPS_PER_EPOCH


def test_constant() -> None:
    assert set(rates_of_ours("constant")) == {PEAK}


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_onecycle_of_few_steps_is_finite_and_positive(steps: int, warmup: float) -> None:
    lr = learning_rate("onecycle", peak=PEAK, steps=steps, steps_per_epoch=1, warmup=warmup)
    assert all(0 < lr(step) <= PEAK * (1 + 1e-12) for step in range(steps))


def test_a_tensor_learning_rate_is_set_in_place() -> None:
    rate = torch.tensor(1.0)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=rate, foreach=False)
    optimizer.param_groups[0]["lr"] = rate
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.25


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizers_take_the_settings(name: str, kind: type[torch.optim.Optimizer]) -> None:
    optimizer = create_optimizer(
        name,
        [nn.Parameter(torch.zeros(1))],
        lr=0.5,
        weight_decay=0.25,
        momentum=0.75,
        nesterov=True,
    )
    assert type(optimizer) is kind
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.5, 0.25)
    if name == "sgd":
        assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.75, True)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'sdg'; nearest: sgd"):
        create_optimizer("sdg", [nn.Parameter(torch.zeros(1))], lr=0.1, weight_decay=0)
    with pytest.raises(ValueError, match="'cosin'; nearest: cosine"):
        learning_rate("cosin", peak=1, steps=1, steps_per_epoch=1)
