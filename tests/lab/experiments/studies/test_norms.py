from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from timm.layers import EvoNorm2dB0
from torch import nn

from entprop_fast.lab.experiments.studies.features import features, features_by_layer, perturbed
from entprop_fast.lab.experiments.studies.norms import drift
from entprop_fast.layers import DualBatchNorm2d, convert_dual_norm
from entprop_fast.layers.dual_norm import DualNorm


def test_drift_by_hand() -> None:
    layer = convert_dual_norm(nn.BatchNorm2d(2, eps=1.0))
    assert isinstance(layer, DualBatchNorm2d)
    means, variances, affines = (f"drift of {what}" for what in ("means", "variances", "affines"))
    assert drift(layer) == {means: 0.0, variances: 0.0, affines: 0.0}
    layer.get_buffer("running_var").fill_(3.0)  # + eps: 4, a deviation of 2
    layer.get_buffer("aux_bn.running_mean").copy_(torch.tensor([2.0, 0.0]))  # 1 and 0 deviations
    layer.get_buffer("aux_bn.running_var").fill_(4 * math.e - 1)
    with torch.no_grad():
        layer.aux_bn.weight.fill_(4.0)  # from (1, 1, 0, 0) to (4, 4, 0, 0)
    assert drift(layer) == pytest.approx({means: math.sqrt(1 / 2), variances: 1.0, affines: 3.0})


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


def test_a_norm_without_running_mean() -> None:
    """timm's EvoNorms keep a variance alone."""
    layer: Any = convert_dual_norm(EvoNorm2dB0(3))
    layer.aux.running_var.fill_(math.e * (1 + layer.eps) - layer.eps)
    assert drift(layer) == pytest.approx({"drift of variances": 1.0, "drift of affines": 0.0})
