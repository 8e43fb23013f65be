from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from entprop_fast.lab.experiments.studies.features import features, features_by_layer, perturbed
from entprop_fast.lab.experiments.studies.norms import drift
from entprop_fast.layers import DualBatchNorm2d, convert_dual_norm
from entprop_fast.layers.dual_norm import DualNorm


def dual_norm(channels: int) -> DualBatchNorm2d:
    layer = convert_dual_norm(nn.BatchNorm2d(channels, eps=1.0))
    assert isinstance(layer, DualBatchNorm2d)
    return layer


def test_drift_by_hand() -> None:
    layer = dual_norm(2)
    assert drift(layer) == {
        "drift of means": 0.0,
        "drift of variances": 0.0,
        "drift of affines": 0.0,
    }
    assert layer.running_var is not None and layer.aux_bn.running_mean is not None
    layer.running_var.fill_(3.0)  # + eps: 4, a deviation of 2
    layer.aux_bn.running_mean.copy_(torch.tensor([2.0, 0.0]))  # 1 and 0 deviations
    assert layer.aux_bn.running_var is not None
    layer.aux_bn.running_var.fill_(4 * math.e - 1)
    with torch.no_grad():
        layer.aux_bn.weight.fill_(4.0)  # from (1, 1, 0, 0) to (4, 4, 0, 0)
    found = drift(layer)
    assert found["drift of means"] == pytest.approx(math.sqrt(1 / 2))
    assert found["drift of variances"] == pytest.approx(1.0)
    assert found["drift of affines"] == pytest.approx(3.0)


def test_a_layer_norm_has_affines_alone() -> None:
    layer = convert_dual_norm(nn.LayerNorm(3))
    assert isinstance(layer, DualNorm)
    assert drift(layer) == {"drift of affines": 0.0}


def test_features_and_the_free_step() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Dropout(0.9), nn.Flatten(), nn.Linear(8, 2))
    images = torch.rand(3, 1, 2, 2)
    read, logits = features(model, images)
    torch.testing.assert_close(read, model[0](images).flatten(1))
    torch.testing.assert_close(logits, model[3](read))
    layers = features_by_layer(model, images)
    torch.testing.assert_close(layers["0"], model[0](images).mean(dim=(2, 3)))
    assert list(layers) == ["0", "1"] and model.training
    moved = perturbed(model, images, torch.tensor([0, 1, 0]), 0.25)
    assert (images - moved).abs().max() <= 0.25 + 1e-6 and 0 <= moved.min() and moved.max() <= 1
    eval_model = model.eval()
    losses = [
        nn.functional.cross_entropy(eval_model(x), torch.tensor([0, 1, 0])) for x in (images, moved)
    ]
    assert losses[1] > losses[0]
    with pytest.raises(ValueError, match="no linear layer"):
        features(nn.Sequential(nn.Flatten()), images)
