"""Initialise networks."""

from __future__ import annotations

from torch import nn


def init_convolutional(model: nn.Module) -> None:
    """Fill every convolution by Kaiming's normal (fan out, ReLU); other layers keep PyTorch's.

    He et al., ICCV 2015; the same in torchvision's ResNets. Norms already start at 1 and 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
