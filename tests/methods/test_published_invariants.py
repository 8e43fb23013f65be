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
    generator,
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


def test_advprop_attacks_around_the_image_within_eps() -> None:
    method = make("advprop", n=4, eps=0.05, alpha=0.02, generator=generator(3))
    images, labels = batch()
    method(images, labels)
    assert method.perturbed is not None
    moved = (method.perturbed - images).abs()
    assert 0.04 < moved.max() <= 0.05 + 1e-15
    assert method.perturbed.min() >= 0 and method.perturbed.max() <= 1


@pytest.mark.parametrize("p_adv", [0.25, 0.5])
def test_fast_advprop_divides_by_the_rows_that_each_parameter_saw(p_adv: float) -> None:
    model = dual_network()
    original, seen = copy.deepcopy(model), watch(model)
    method = make("fast_advprop", model=model, p_adv=p_adv)
    images, labels = batch()
    method(images, labels)
    b = {0.25: 3, 0.5: 6}[p_adv]
    assert [len(one["input"]) for one in seen] == [12 - b, b, b]
    assert_equal(seen[0]["input"], images[: 12 - b])
    assert ((seen[1]["input"] - images[12 - b :]).abs() <= 1 / 255).all()
    sums = gradients_of(
        original,
        ("main", images[: 12 - b], labels[: 12 - b], 1.0),
        ("aux", seen[1]["input"], labels[12 - b :], 0.5),
        ("aux", seen[2]["input"], labels[12 - b :], 0.5),
    )
    for name, gradient in sums.items():
        divisor = b if "aux_bn" in name else 12 - b if name.startswith("bn") else 12
        found = model.get_parameter(name).grad
        torch.testing.assert_close(found, gradient / divisor, rtol=1e-12, atol=1e-12)


def test_fast_advprops_auxiliary_statistics_move_once() -> None:
    method = make("fast_advprop")
    method(*batch())
    for name, buffer in method.model.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert buffer == 1, name


def test_free_trainings_delta_persists_from_batch_to_batch() -> None:
    model = dual_network()
    seen = watch(model)
    method = make("free_at", model=model, replays=2, eps=0.1, alpha=0.04)
    first, second = batch(seed=0), batch(8, seed=1)
    method(*first)
    delta = method.state_dict()["delta"]
    method(*second)
    assert_equal(seen[0]["input"], first[0])  # delta starts at 0
    assert_equal(seen[2]["input"], (second[0] + delta[:8]).clamp(0, 1))
    later = method.state_dict()["delta"]
    assert_equal(later[8:], delta[8:])  # rows that the smaller batch does not have
    assert not torch.equal(later[:8], delta[:8])
    assert later.abs().max() == 0.1  # 4 steps of .04, kept within the radius


def test_free_training_steps_in_every_replay() -> None:
    method = make("free_at", replays=3)
    steps: list[int] = []
    method.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    before = [p.detach().clone() for p in method.model.parameters()]
    method(*batch())
    assert len(steps) == 3
    assert any(
        not torch.equal(p, q) for p, q in zip(before, method.model.parameters(), strict=True)
    )


def test_a_copy_of_free_trainings_state_is_loaded_in_place_and_apart() -> None:
    one, other = make("free_at"), make("free_at")
    one(*batch())
    other(*batch(seed=1))
    held = other.__dict__["delta"]
    other.load_state_dict(one.state_dict())
    assert other.__dict__["delta"] is held  # a captured step would go on reading it
    assert_equal(other.state_dict(), one.state_dict())
    one(*batch(seed=2))
    assert not torch.equal(one.state_dict()["delta"], held)
    fresh = make("free_at")
    fresh.load_state_dict(other.state_dict())
    assert_equal(fresh.state_dict(), other.state_dict())
    fresh.load_state_dict(make("free_at").state_dict())
    assert fresh.state_dict()["delta"] is None


def test_mixprop_mixes_in_the_auxiliary_pass_alone() -> None:
    model = dual_network()
    seen = watch(model)
    images, labels = batch()
    make("mixprop", model=model, generator=generator(5))(images, labels)
    source = generator(5)
    lam = torch._sample_dirichlet(torch.ones(2, dtype=torch.float64), source)[0]
    partners = torch.randperm(12, generator=source)
    assert_equal(seen[0]["input"], images)
    torch.testing.assert_close(
        seen[1]["input"], lam * images + (1 - lam) * images[partners], rtol=1e-12, atol=1e-12
    )


def test_without_a_selection_nothing_is_reported_selected() -> None:
    for name in ("advprop", "fast_advprop", "mixprop"):
        result = make(name)(*batch())
        assert result.entropy_selected.isnan() and result.entropy_unselected > 0
    for name in ("advprop", "fast_advprop"):
        result = make(name, k=0.5)(*batch())
        assert result.entropy_selected > result.entropy_unselected > 0
