"""Early layers learn slower, norms may be spared decay, halves of a norm stay together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from entprop_fast import models
from entprop_fast.lab.training.optim import create_optimizer, learning_rate, set_learning_rate
from entprop_fast.lab.training.parameter_groups import layers_of, parameter_groups
from entprop_fast.layers import convert_dual_norm
from entprop_fast.models.normalized import Normalized
from entprop_fast.optional import load_torchvision


def by_name(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """The rate's scale and the weight decay of each parameter, every one in one group."""
    of = {
        id(one): (group.get("lr_scale", 1.0), group["weight_decay"])
        for group in groups
        for one in group["params"]
    }
    assert len(of) == sum(len(group["params"]) for group in groups)
    return {name: of[id(one)] for name, one in model.named_parameters()}


def test_our_networks_have_a_layer_for_each_block() -> None:
    network = convert_dual_norm(models.create("wrn16_0.5", num_classes=3))
    layers = layers_of(network)
    expected = {"conv1": 0, "layer1.0": 1, "layer1.1": 2, "layer2.0": 3, "layer3.1": 6}
    for block, layer in expected.items():
        assert {layers[name] for name in layers if name.startswith(f"{block}.")} == {layer}
    assert {layers[name] for name in layers if name.startswith(("bn", "fc"))} == {7}
    assert layers["bn.aux_bn.weight"] == 7 and layers["layer3.1.bn1.aux_bn.bias"] == 6
    assert layers.keys() == dict(network.named_parameters()).keys()


def test_a_network_without_blocks_is_one_layer() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)

    assert set(layers_of(Flat()).values()) == {0}


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "resnet18", "convnext_atto"])
def test_timm_s_networks_follow_timm_s_rules(arch: str) -> None:
    load_torchvision(purpose="a test")
    import timm
    from timm.optim import param_groups_layer_decay

    small: dict[str, Any] = {"depth": 2} if arch.startswith("vit") else {}
    plain: Any = timm.create_model(arch, num_classes=3, **small)
    decay: dict[str, Any] = {"weight_decay": 0.05, "layer_decay": 0.75}
    spared = plain.no_weight_decay() if hasattr(plain, "no_weight_decay") else ()
    theirs = param_groups_layer_decay(plain, no_weight_decay_list=spared, **decay)
    expected = by_name(plain, theirs)
    dual = convert_dual_norm(plain)
    found = by_name(dual, parameter_groups(dual, norm_decay=False, **decay))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
    halves = [name for name in found if ".aux_" in f".{name}"]
    assert halves
    for name in halves:
        main = name.replace("aux_bn.", "").replace("aux_ln.", "").replace("aux_norm.", "")
        assert found[name] == found[main], name


def test_norms_and_biases_keep_their_decay_unless_they_are_spared() -> None:
    model = Normalized(models.create("wrn10_0.5", num_classes=3), (0.5,), (0.5,))
    loss = [nn.Parameter(torch.zeros(3, 3)), nn.Parameter(torch.zeros(3))]
    every = parameter_groups(model, loss, weight_decay=0.1)
    assert [group["weight_decay"] for group in every] == [0.1]
    assert "lr_scale" not in every[0]
    spared = parameter_groups(model, loss, weight_decay=0.1, norm_decay=False)
    assert {group["weight_decay"]: {p.ndim > 1 for p in group["params"]} for group in spared} == {
        0.1: {True},
        0.0: {False},
    }
    assert sum(len(group["params"]) for group in spared) == len(list(model.parameters())) + 2


def test_a_schedule_reaches_each_group_by_its_scale() -> None:
    model = models.create("wrn10_0.5", num_classes=3)
    groups = parameter_groups(model, weight_decay=0, layer_decay=0.5)
    optimizer = create_optimizer("sgd", groups, lr=1.0, weight_decay=0)
    optimizer.param_groups[0]["lr"] = torch.tensor(1.0)
    set_learning_rate(optimizer, 0.8)
    rates = sorted(float(group["lr"]) for group in optimizer.param_groups)
    assert rates == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8])


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_a_warm_up_is_a_line_to_the_schedule(schedule: str) -> None:
    settings: dict[str, Any] = {"peak": 2.0, "steps": 40, "steps_per_epoch": 4, "decay_every": 3}
    plain = learning_rate(schedule, **settings)
    warm = learning_rate(schedule, warmup_epochs=1.5, **settings)
    assert [warm(step) for step in range(6)] == pytest.approx(
        [plain(step) * (step + 1) / 6 for step in range(6)], rel=1e-12
    )
    assert all(warm(step) == plain(step) for step in range(6, 40))
