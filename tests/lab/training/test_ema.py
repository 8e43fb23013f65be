"""The average of weights is the recursion it says, of both halves of every norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from entprop_fast import models
from entprop_fast.lab.checkpoint import read
from entprop_fast.lab.training.ema import AveragedWeights
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.layers import convert_dual_norm

DECAY = 0.75


def floats(model: nn.Module) -> dict[str, np.ndarray]:
    return {
        name: value.detach().double().numpy().copy()
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }


def recursion(seen: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Average states in float64, from the first one on."""
    mean = seen[0]
    for state in seen[1:]:
        mean = {name: DECAY * mean[name] + (1 - DECAY) * state[name] for name in mean}
    return mean


def test_parameters_and_running_statistics_are_averaged_and_counters_are_not() -> None:
    model = convert_dual_norm(models.create("wrn10_0.5", num_classes=3)).double()
    average, seen = AveragedWeights(model, DECAY), []
    draw = torch.Generator().manual_seed(0)
    for step in range(1, 6):
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    value.copy_(torch.rand(value.shape, generator=draw, dtype=value.dtype))
                else:
                    value.fill_(7 * step + ("aux" in name))
        average.update()
        seen.append(floats(model))
    found, expected = floats(average.read()), recursion(seen)
    assert any("aux_bn.running_var" in name for name in expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)
    for name, value in average.model.state_dict().items():
        if not value.is_floating_point():
            assert value == 35 + ("aux" in name)


def test_a_run_deploys_the_average_over_its_steps(tmp_path: Path, without_pictures: None) -> None:
    out, seen = tmp_path / "run", []

    def watch(trainer: Trainer) -> None:
        trainer.optimizer.register_step_post_hook(lambda *_: seen.append(floats(trainer.model)))

    size: dict[str, Any] = {"train_size": 40, "batch_size": 10, "epochs": 2, "corruptions": "none"}
    train_run(resolve("digits", **size, ema=DECAY, out=str(out), device="cpu"), watch=watch)
    state = read(out / "checkpoint.pt")
    assert len(seen) == 8 and state["ema"]["updates"] == 8
    averaged = state["ema"]["model"]
    for name, value in recursion(seen).items():
        np.testing.assert_allclose(averaged[name].numpy(), value, rtol=2e-5, atol=1e-6)
        assert np.array_equal(state["model"][name].double().numpy(), seen[-1][name])


def test_it_goes_on_from_its_state_and_holds_no_gradients() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model(torch.rand(4, 3)).sum().backward()
    first = AveragedWeights(model, DECAY)
    assert all(one.grad is None and not one.requires_grad for one in first.model.parameters())
    first.update()
    second = AveragedWeights(model, DECAY)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    second.load_state_dict(first.state_dict())
    for one in (first, second):
        one.update()
    pairs = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(ValueError, match="updates"):
        second.load_state_dict({"updates": -1, "model": {}})
