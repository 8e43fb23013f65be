"""Avoid 1x1 convolutions with a stride on few channels, where oneDNN writes out of bounds."""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, nn
from torch.nn import functional as F

# oneDNN's block of channels (AVX-512). With fewer in channels_last its workspace is too small:
# https://github.com/uxlfoundation/oneDNN/issues/6035, seen here with torch 2.13 as crashes.
_BLOCK = 16


class SubsampledConv2d(nn.Conv2d):
    """A 1x1 convolution that leaves out pixels first, on a CPU, and then has no stride."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve as `nn.Conv2d` does, with the same values and gradients."""
        if x.device.type != "cpu":
            return super().forward(x)
        # Slicing would give a contiguous gradient; this keeps channels_last both ways.
        pixels = F.avg_pool2d(x, 1, (self.stride[0], self.stride[1]))
        return F.conv2d(pixels, self.weight, self.bias)


def subsample_few_channels(model: nn.Module) -> nn.Module:
    """Make every such convolution of `model` a `SubsampledConv2d`, in place, and return `model`.

    Networks from `entprop_fast.models.create` are so already. Values, parameters and state dict
    keys stay; subclasses of `nn.Conv2d` are left alone.
    """
    for module in model.modules():
        if _is_one(module):
            # In place, so that hooks and references to the module stay.
            module.__class__ = SubsampledConv2d
    return model


def _is_one(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.padding == (0, 0)
        and module.groups == 1
        and module.in_channels < _BLOCK
    )
