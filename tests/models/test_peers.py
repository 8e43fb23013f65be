"""Against torchvision and timm themselves."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torchvision
from torch import Tensor, nn

from entprop_fast import models

NAMES = ["resnet18", "resnet50", "resnext50_32x4d"]  # test_create.py counts the wide one's


def peer_and_ours(name: str) -> tuple[nn.Module, nn.Module]:
    peer = torchvision.models.get_model(name, weights=None, num_classes=11)
    generator = torch.Generator().manual_seed(0)
    for key, value in peer.state_dict().items():
        if "running" in key:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    # Without storage of its own until it loads: the initial draws of the large ones take seconds.
    with torch.device("meta"):
        ours = models.create(name, num_classes=11)
    ours.load_state_dict(deepcopy(peer.state_dict()), strict=True, assign=True)
    return peer, ours


@pytest.mark.usefixtures("plain_pytorch")
@pytest.mark.parametrize("name", NAMES)
def test_torchvision_weights_load_and_outputs_agree(name: str) -> None:
    peer, ours = peer_and_ours(name)
    assert list(ours.state_dict()) == list(peer.state_dict())
    x = torch.rand(2, 3, 40, 40)
    for training in (False, True):
        torch.testing.assert_close(ours.train(training)(x), peer.train(training)(x), rtol=0, atol=0)
    for key, value in peer.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.usefixtures("plain_pytorch")
def test_gradients_agree_with_torchvision() -> None:
    peer, ours = peer_and_ours("resnet18")
    x = torch.rand(4, 3, 48, 48)

    def gradients(model: nn.Module) -> tuple[Tensor, ...]:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(model(leaf).square().sum(), [leaf, *model.parameters()])

    for mine, theirs in zip(gradients(ours), gradients(peer), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "name",
    [
        *("timm:resnet18", "timm:efficientnet_b0", "timm:resnet18.a1_in1k", "torchvision:resnet18"),
        *("torchvision:mobilenet_v3_small", "torchvision:googlenet", "torchvision:squeezenet1_1"),
        "torchvision:shufflenet_v2_x0_5",
    ],
)
@pytest.mark.parametrize("in_channels", [3, 5])
def test_names_pass_through(name: str, in_channels: int) -> None:
    model = models.create(name, num_classes=6, in_channels=in_channels)
    logits = model(torch.rand(2, in_channels, 64, 64))
    assert isinstance(logits, Tensor) and logits.shape == (2, 6)


@pytest.mark.parametrize("name", ["resnet18", "swin_t", "convnext_tiny", "vit_b_32", "vgg11"])
def test_only_the_first_convolution_changes_for_other_channels(name: str) -> None:
    with torch.device("meta"):
        peer = torchvision.models.get_model(name, weights=None, num_classes=6)
        model = models.create(f"torchvision:{name}", num_classes=6, in_channels=5)
    theirs = {key: tuple(value.shape) for key, value in peer.state_dict().items()}
    changed = {
        key: value.shape[1]
        for key, value in model.state_dict().items()
        if tuple(value.shape) != theirs[key]
    }
    assert list(model.state_dict()) == list(theirs)
    assert list(changed.values()) == [5]
