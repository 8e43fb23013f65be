from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from entprop_fast.lab.training.optim import create_optimizer, learning_rate, set_learning_rate

EPOCHS, STEPS_PER_EPOCH, PEAK = 12, 7, 0.3
STEPS = EPOCHS * STEPS_PER_EPOCH


@pytest.mark.parametrize(
    ("schedule", "options", "theirs", "settings"),
    [
        *(
            (
                *("onecycle", {"warmup": warmup}, lr_scheduler.OneCycleLR),
                {"max_lr": PEAK, "total_steps": STEPS, "pct_start": warmup},
            )
            for warmup in (0.1, 0.3, 0.5)
        ),
        (
            *("step", {"decay_every": 5}, lr_scheduler.StepLR),
            {"step_size": 5 * STEPS_PER_EPOCH, "gamma": 0.1},
        ),
        ("constant", {}, lr_scheduler.ConstantLR, {"factor": 1}),
    ],
)
def test_schedules_are_torchs(
    schedule: str, options: dict[str, Any], theirs: Any, settings: dict[str, Any]
) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK, momentum=0.9)
    expected, made = [], theirs(optimizer, **settings)
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    lr = learning_rate(schedule, peak=PEAK, steps=STEPS, steps_per_epoch=STEPS_PER_EPOCH, **options)
    assert [lr(step) for step in range(STEPS)] == pytest.approx(expected, rel=1e-12)


def test_cosine_is_torchs_stepped_once_an_epoch() -> None:
    lr = learning_rate("cosine", peak=PEAK, steps=STEPS, steps_per_epoch=STEPS_PER_EPOCH)
    expected = [
        PEAK * (1 + math.cos(math.pi * (step // STEPS_PER_EPOCH) / EPOCHS)) / 2
        for step in range(STEPS)
    ]
    assert [lr(step) for step in range(STEPS)] == pytest.approx(expected, rel=1e-12)


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
    weights = [nn.Parameter(torch.zeros(1))]
    given = {"lr": 0.5, "weight_decay": 0.25, "momentum": 0.75, "nesterov": True}
    optimizer = create_optimizer(name, weights, **given)  # type: ignore[arg-type]
    assert type(optimizer) is kind
    assert {one: optimizer.defaults.get(one, value) for one, value in given.items()} == given


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'sdg'; nearest: sgd"):
        create_optimizer("sdg", [nn.Parameter(torch.zeros(1))], lr=0.1, weight_decay=0)
    with pytest.raises(ValueError, match="'cosin'; nearest: cosine"):
        learning_rate("cosin", peak=1, steps=1, steps_per_epoch=1)
