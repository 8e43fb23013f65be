"""The one spot where a norm meets the residual sum and the ReLU, shared by every network here."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def norm_relu(norm: nn.Module, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """``relu(norm(x) + residual)``: the chain that one fused kernel can replace.

    A function rather than a module, so that the networks' ``state_dict`` keys stay torchvision's.

    Args:
        norm: a batch norm over ``x``. Its output must be a new tensor (it is overwritten).
        x: activations, ``[N, C, H, W]``.
        residual: same shape as ``x``, or None for no sum.
    """
    out = norm(x)
    if residual is not None:
        out += residual
    return F.relu(out, inplace=True)
