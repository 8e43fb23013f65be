from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from timm.layers import EvoNorm2dB0
from torch import nn

from entprop_fast.lab.evaluation.norm_drift import drift
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


def test_a_norm_without_running_mean() -> None:
    """timm's EvoNorms keep a variance alone."""
    layer: Any = convert_dual_norm(EvoNorm2dB0(3))
    layer.aux.running_var.fill_(math.e * (1 + layer.eps) - layer.eps)
    assert drift(layer) == pytest.approx({"drift of variances": 1.0, "drift of affines": 0.0})
