"""The pre-activation block against the paper's formula, written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entprop_fast.models.blocks import norm_relu
from entprop_fast.models.wrn import PreActBlock, WideResNet


def batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = (x - mean).square().mean((0, 2, 3), keepdim=True)
    scale, shift = norm.weight.view(1, -1, 1, 1), norm.bias.view(1, -1, 1, 1)
    return (x - mean) / (variance + norm.eps).sqrt() * scale + shift


@pytest.mark.parametrize(("in_width", "width", "stride"), [(4, 4, 1), (4, 6, 1), (4, 6, 2)])
def test_block_is_the_written_out_formula(in_width: int, width: int, stride: int) -> None:
    block = PreActBlock(in_width, width, stride).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, in_width, 7, 7, dtype=torch.float64)
    before = x.clone()

    activated = batch_norm(x, block.bn1).clamp(min=0)
    hidden = F.conv2d(activated, block.conv1.weight, stride=stride, padding=1)
    branch = F.conv2d(batch_norm(hidden, block.bn2).clamp(min=0), block.conv2.weight, padding=1)
    skip = x
    if block.shortcut is not None:
        skip = F.conv2d(activated, block.shortcut.weight, stride=stride)
    assert (block.shortcut is None) == (in_width == width and stride == 1)

    torch.testing.assert_close(block(x), skip + branch)
    assert torch.equal(x, before)


def test_norm_relu_adds_before_the_relu_and_leaves_its_inputs_alone() -> None:
    norm = nn.BatchNorm2d(3).double()
    x, residual = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64).unbind()
    kept = x.clone(), residual.clone()
    torch.testing.assert_close(
        norm_relu(norm, x, residual), (batch_norm(x, norm) + residual).clamp(min=0)
    )
    torch.testing.assert_close(norm_relu(norm, x), batch_norm(x, norm).clamp(min=0))
    assert torch.equal(norm_relu(nn.Identity(), x, residual), (x + residual).clamp(min=0))
    assert torch.equal(x, kept[0]) and torch.equal(residual, kept[1])


def test_width_must_be_finite() -> None:
    with pytest.raises(ValueError, match="width = inf must be a positive number"):
        WideResNet(10, float("inf"), num_classes=2)
