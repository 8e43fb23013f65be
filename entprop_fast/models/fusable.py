"""The one spot where a norm meets the residual sum and the ReLU, shared by every network here."""

from __future__ import annotations

from torch import Tensor, nn

from entprop_fast.layers import DualBatchNorm2d
from entprop_fast.layers.batch_norm_op import (
    averages_cumulatively,
    batch_norm,
    finish,
    has_hooks,
)


def norm_relu(norm: nn.Module, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """``relu(norm(x) + residual)``, in one op where `norm` is a plain or a dual batch norm.

    A function rather than a module, so that the networks' ``state_dict`` keys stay torchvision's.

    Args:
        norm: a batch norm over ``x``. Its output must be a new tensor (it may be overwritten).
        x: activations, ``[N, C, H, W]``.
        residual: same shape as ``x``, or None for no sum.
    """
    if not has_hooks(norm):  # a hook is shown the norm's own output
        if type(norm) is nn.BatchNorm2d and not averages_cumulatively(norm, x):
            return batch_norm(x, norm, residual=residual, relu=True)
        if type(norm) is DualBatchNorm2d:
            y: Tensor = norm(x, residual, relu=True)
            return y
    return finish(norm(x), residual, relu=True)
