"""Convolve 3x3, stride 1 and padding 1, with fewer products than it has terms, on the CPU."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from entprop_fast.ops.backend import exporting, uses_kernels
from entprop_fast.ops.layout import is_channels_last
from entprop_fast.ops.library import define
from entprop_fast.ops.tensor_checks import require, require_device, require_floating
from entprop_fast.torch_internals import backward_reaches

SCHEMA = "conv3x3(Tensor x, Tensor weight) -> Tensor"
BACKWARD_SCHEMA = (
    "conv3x3_backward(Tensor grad, Tensor x, Tensor weight, bool want_x, bool want_weight) "
    "-> (Tensor dx, Tensor dweight)"
)
GEOMETRY = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)  # of aten.convolution_backward


def check(x: Tensor, weight: Tensor) -> None:
    """Refuse arguments of the op that do not fit."""
    pixels = x.shape[2:].numel()
    require_floating("x", x, "[N, C, H, W]", x.dim() == 4 and pixels > 0)
    if weight.shape[1:] != (x.shape[1], 3, 3) or weight.dtype != x.dtype:
        raise ValueError(
            f"weight: expected {x.dtype} [K, {x.shape[1]}, 3, 3], "
            f"got {weight.dtype} {list(weight.shape)}"
        )
    require_device("weight", weight, x)


def check_backward(
    grad: Tensor, x: Tensor, weight: Tensor, want_x: bool, want_weight: bool
) -> None:
    """Refuse arguments of the backward that do not fit."""
    check(x, weight)
    require("grad", grad, (x.shape[0], weight.shape[0], *x.shape[2:]), x.dtype, x)


def reference(x: Tensor, weight: Tensor) -> Tensor:
    """Compute the op in plain PyTorch."""
    return F.conv2d(x, weight, padding=1)


def reference_backward(
    grad: Tensor, x: Tensor, weight: Tensor, want_x: bool, want_weight: bool
) -> tuple[Tensor, Tensor]:
    """Compute the backward in plain PyTorch; what is not wanted is empty."""
    dx, dweight = _native_backward(grad, x, weight, want_x, want_weight)
    return x.new_empty(0) if dx is None else dx, x.new_empty(0) if dweight is None else dweight


def _native_backward(
    grad: Tensor, x: Tensor, weight: Tensor, want_x: bool, want_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    mask = [want_x, want_weight, False]
    found = torch.ops.aten.convolution_backward(grad, x, weight, *GEOMETRY, mask)
    return found[0], found[1]


def _fake(x: Tensor, weight: Tensor) -> Tensor:
    return reference(x, weight)


def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, want_x: bool, want_weight: bool
) -> tuple[Tensor, Tensor]:
    return reference_backward(grad, x, weight, want_x, want_weight)


OP, REFERENCE_OP = define(SCHEMA, check, reference, _fake)
BACKWARD, REFERENCE_BACKWARD = define(
    BACKWARD_SCHEMA, check_backward, reference_backward, _fake_backward
)


class _Conv3x3(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return cast(Tensor, OP(x, weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        want_x, want_weight = ctx.needs_input_grad
        # True of a weight also where `torch.autograd.grad` asks for the images' gradient alone, as
        # every auxiliary pass but the last does.
        if want_weight and not torch.compiler.is_compiling():
            want_weight = backward_reaches(ctx.next_functions[1][0])
        if torch.is_grad_enabled():  # a second derivative is wanted, which PyTorch's own has
            return _native_backward(grad, x, weight, want_x, want_weight)
        dx, dweight = BACKWARD(grad, x, weight, want_x, want_weight)
        return dx if want_x else None, dweight if want_weight else None


_APPLY: Callable[[Tensor, Tensor], Tensor] = _Conv3x3.apply

# csrc/cpu/kernels.h: kWinogradChannels. Beyond MOST_CHANNELS the transformed weights outgrow the
# caches; with fewer tiles a channel, transforming them costs more than is saved.
_CHANNELS = 16
_MOST_CHANNELS = 320
_TILES_A_CHANNEL = 3


def conv3x3_pays(x: Tensor, weight: Tensor) -> bool:
    """Return whether `conv3x3` has a kernel for these here, and one faster than PyTorch's."""
    # A compiler fuses its own convolutions with what follows them.
    if torch.compiler.is_compiling() or exporting():
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if x.dim() != 4 or x.shape[1] != weight.shape[1]:
        return False
    most = max(weight.shape[:2])
    if most > _MOST_CHANNELS or any(channels % _CHANNELS for channels in weight.shape[:2]):
        return False
    rows, _, height, width = x.shape
    tiles = rows * ((height + 1) // 2) * ((width + 1) // 2)
    return (
        tiles >= _TILES_A_CHANNEL * most
        and is_channels_last(x)
        and not torch.is_autocast_enabled("cpu")
        and uses_kernels(x)
    )


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """Compute ``F.conv2d(x, weight, padding=1)`` by Winograd's F(2x2, 3x3), forward and backward.

    Rounding is that of PyTorch's own convolution or less (docs/kernels/conv3x3_cpu.md). What no
    kernel covers runs in plain PyTorch behind the same op.

    Args:
        x: [N, C, H, W], floating; the kernels take float32 in channels_last, C in multiples of 16.
        weight: [K, C, 3, 3], dtype of `x`; the kernels take K in multiples of 16.

    Returns:
        [N, K, H, W], channels_last where `x` is.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    if uses_kernels(x):
        return _APPLY(x, weight)
    check(x, weight)
    return reference(x, weight)
