"""What the papers behind the other methods promise of a step, seen from outside."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast import route
from tests.methods.support import (
    assert_equal,
    batch,
    dual_network,
    gradients,
    make,
    statistics,
)


def watch(model: nn.Module) -> list[dict[str, Any]]:
    """A list that grows by what stands before each forward of `model`."""
    seen: list[dict[str, Any]] = []

    def before(module: nn.Module, given: tuple[Tensor]) -> None:
        flags = [m.training for m in module.modules()]
        seen.append(
            {
                "input": given[0].detach().clone(),
                "gradients": gradients(module),
                "statistics": statistics(module),
                "training": flags,
            }
        )

    model.register_forward_pre_hook(before)
    return seen


def gradients_of(model: nn.Module, *losses: tuple[str, Tensor, Tensor, float]) -> dict[str, Tensor]:
    """Of the sum of weighted cross-entropy sums, each of (route, images, labels, weight)."""
    model = copy.deepcopy(model)
    for half, images, labels, weight in losses:
        with route(model, "main" if half == "main" else "aux"):
            (weight * F.cross_entropy(model(images), labels, reduction="sum")).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attack_mode", ["train", "eval"])
@pytest.mark.parametrize("k", [None, 0.5])
def test_advprops_attack_leaves_nothing_behind(attack_mode: str, k: float | None) -> None:
    model = dual_network()
    model.get_submodule("bn1").eval()  # stays so, attacked in eval mode or not
    flags = [m.training for m in model.modules()]
    original, seen = copy.deepcopy(model), watch(model)
    method = make("advprop", model=model, n=3, k=k, attack_mode=attack_mode)
    images, labels = batch()
    method(images, labels)
    assert len(seen) == 1 + 3 + 1
    after_main = seen[1]
    for attack in seen[2:]:  # before a later pass: what an attack pass has left
        assert_equal(attack["gradients"], after_main["gradients"])
        assert_equal(attack["statistics"], after_main["statistics"])
    assert all(g is None for n, g in after_main["gradients"].items() if "aux_bn" in n)
    assert [any(one["training"]) for one in seen] == [True, *[attack_mode == "train"] * 3, True]
    assert seen[-1]["training"] == flags == [m.training for m in model.modules()]

    assert method.perturbed is not None
    rows = range(12) if k is None else method.selected_index
    expected = gradients_of(
        original,
        ("main", images, labels, 0.5 / 12),
        ("aux", method.perturbed, labels[rows], 0.5 / len(method.perturbed)),
    )
    for name, gradient in expected.items():
        found = model.get_parameter(name).grad
        torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12)
