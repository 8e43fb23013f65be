"""Send to the ops what every network here has: a norm with its sum and ReLU, a 3x3 convolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.fx import Proxy

from entprop_fast.layers import DualBatchNorm2d, Synchronised
from entprop_fast.layers.batch_norm_op import batch_norm, finish
from entprop_fast.layers.torch_quirks import averages_cumulatively, has_hooks
from entprop_fast.ops import conv3x3, conv3x3_pays
from entprop_fast.ops.backend import exporting


def norm_relu(norm: nn.Module, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Compute ``relu(norm(x) + residual)``, in one op where `norm` is a plain or a dual batch norm.

    A function rather than a module, so that the networks' ``state_dict`` keys stay torchvision's.

    Args:
        norm: a batch norm over ``x``, or what somebody has put in its place.
        x: activations, ``[N, C, H, W]``.
        residual: same shape as ``x``, or None for no sum.
    """
    # A hook is shown the norm's own output; in a graph of torch.fx modules stay what they are.
    if not (has_hooks(norm) or isinstance(x, Proxy)):
        if type(norm) is nn.BatchNorm2d and not (exporting() or averages_cumulatively(norm, x)):
            return batch_norm(x, norm, residual=residual, relu=True)
        if type(norm) is DualBatchNorm2d or isinstance(norm, Synchronised):
            y: Tensor = norm(x, residual, relu=True)
            return y
    return finish(norm(x), residual, relu=True)


def conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Compute ``layer(x)``, by the op where that is faster: plain 3x3 convolutions of stride 1.

    Args:
        layer: any convolution.
        x: activations, ``[N, C, H, W]``.
    """
    if (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (3, 3)
        and layer.stride == layer.padding == layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.bias is None
        and layer.padding_mode == "zeros"
        and not (has_hooks(layer) or isinstance(x, Proxy))
        and conv3x3_pays(x, layer.weight)
    ):
        return conv3x3(x, layer.weight)
    y: Tensor = layer(x)
    return y
