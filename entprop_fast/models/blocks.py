"""Send to the ops what every network here has: a norm with its sum and ReLU, a 3x3 convolution."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from entprop_fast.layers import DualBatchNorm2d, Synchronised
from entprop_fast.layers.batch_norm_op import batch_norm, batch_norm_outputs, finish
from entprop_fast.layers.torch_quirks import averages_cumulatively, has_hooks
from entprop_fast.norm_half import Normed
from entprop_fast.ops import conv3x3, conv3x3_pays
from entprop_fast.ops.backend import exporting
from entprop_fast.torch_internals import call_hooks_of

# Attributes of a module that nobody has given a forward of its own or compiled in place.
_OWN = {*vars(nn.Module()), "shortcut", "downsample"}


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


def norm_relu_outputs(
    norm: nn.Module,
    x: Tensor,
    residual: Tensor | None = None,
    *,
    addend: Tensor | None = None,
    twice: bool = False,
) -> Normed:
    """Compute ``relu(norm(x + addend) + residual)`` with the sums around it in the norm's passes.

    Args:
        norm: a batch norm over ``x``, or what somebody has put in its place.
        x: activations, ``[N, C, H, W]``.
        residual: same shape as ``x``, or None for no sum.
        addend: same shape as ``x``, or None for no sum.
        twice: whether two will read the result: one ``y``, the other ``again``.
    """
    if (addend is not None or twice) and not (has_hooks(norm) or isinstance(x, Proxy)):
        if type(norm) is nn.BatchNorm2d and not (exporting() or averages_cumulatively(norm, x)):
            return batch_norm_outputs(
                x, norm, residual=residual, relu=True, addend=addend, twice=twice
            )
        if type(norm) is DualBatchNorm2d and "forward" not in norm.__dict__:
            return norm.outputs(x, residual, relu=True, addend=addend, twice=twice)
    total = x if addend is None else x + addend
    y = norm_relu(norm, total, residual)
    return Normed(y, y, total)


def is_untouched(module: nn.Module, cls: type[nn.Module], x: Tensor) -> bool:
    """Return whether nobody would notice that `module`, a `cls`, is run in another way.

    Args:
        module: part of a network.
        cls: whose forward is known.
        x: what it gets; no proxy of torch.fx, which records modules.
    """
    if type(module) is not cls or isinstance(x, Proxy):
        return False
    # A compiler, for whom what is compiled in place is no other, cannot list them in torch 2.11.
    compiling = torch.compiler.is_compiling()
    if "forward" in module.__dict__ if compiling else module.__dict__.keys() - _OWN:
        return False
    return not (has_hooks(module) or any(call_hooks_of(None)))


def parts_of(groups: tuple[nn.Module, ...], x: Tensor) -> list[nn.Module]:
    """List the blocks of the groups that nobody has touched, and the other groups whole.

    One loop over them holds no input of a group while its blocks run.
    """
    found: list[nn.Module] = []
    for group in groups:
        whole = not is_untouched(group, nn.Sequential, x)
        found += [group] if whole else [*cast(nn.Sequential, group)]
    return found


def only_read(*readers: nn.Module | None) -> bool:
    """Return whether all are plain convolutions, or begin with one, which change no input in place.

    Two readers of one memory then need no tensors whose changes autograd tells apart.
    """
    for reader in readers:
        first = reader
        if type(reader) is nn.Sequential and len(reader) and not has_hooks(reader):
            first = reader[0]
        plain = type(first) is nn.Conv2d and "forward" not in first.__dict__
        if first is not None and not (plain and not has_hooks(first)):
            return False
    return True


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
