"""Folding a norm into the convolution before it changes nothing, and is done nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast.lab.publish.fold_norms import Folded, fold_norms
from tests.lab.publish.conftest import settled


class Shared(nn.Module):
    """What a convolution gives is read by two, so that its norm cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        found = self.convolution(images)
        sums: Tensor = found + self.norm(found)
        return sums


class Generated(nn.Module):
    """The convolution's weight is computed while the network runs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.randn(4, 3, 1, 1)), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.norm(F.conv2d(images, self.weight * images.mean()))
        return found


def chain(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(*modules)


NETWORKS = {
    "bias and groups": (chain(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)), 1, 1),
    "no bias, no affine": (
        chain(nn.Conv2d(3, 4, 2, bias=False), nn.BatchNorm2d(4, affine=False)),
        1,
        1,
    ),
    "padding by name": (chain(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4)), 1, 1),
    "two in a row": (chain(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)), 2, 2),
    "norm first": (chain(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)), 0, 1),
    "relu between": (chain(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)), 0, 1),
    "transposed": (chain(nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4)), 0, 1),
    "batch statistics": (
        chain(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
        0,
        1,
    ),
    "shared": (Shared(), 0, 1),
    "generated": (Generated(), 0, 1),
    "no norm": (chain(nn.Conv2d(3, 4, 1)), 0, 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_counts(name: str) -> None:
    network, folded, norms = NETWORKS[name]
    network = settled(network, 3, 5, 5).double()
    images = torch.rand(2, 3, 5, 5, dtype=torch.float64)
    exported = torch.export.export(network, (images,)).module(check_guards=False)
    assert isinstance(exported, torch.fx.GraphModule)
    assert fold_norms(exported) == Folded(folded, norms)
    left = [node for node in exported.graph.nodes if "batch_norm" in str(node.target)]
    assert len(left) == norms - folded
    torch.testing.assert_close(exported(images), network(images), rtol=1e-12, atol=1e-12)
