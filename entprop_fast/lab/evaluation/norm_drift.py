"""Measure how far main and auxiliary halves of dual norms lie apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from entprop_fast.layers.dual_norm import DualNorm

DRIFTS = (
    "drift of means",
    "drift of variances",
    "drift of affines",
)


def drift(layer: DualNorm) -> dict[str, float]:
    """Measure how far the two halves of a layer are apart, by kind, where it has such values.

    Means: root mean square over the channels of ``(mean_aux - mean_main) / std_main``; variances:
    of ``log(var_aux / var_main)``; affines: ``|(w, b)_aux - (w, b)_main| / |(w, b)_main|``.
    """
    main, aux = (dict(half.named_buffers(recurse=False)) for half in (layer, layer.aux))
    found: dict[str, float] = {}
    if isinstance(variance := main.get("running_var"), Tensor):
        eps = float(getattr(layer, "eps", 0.0))
        if isinstance(mean := main.get("running_mean"), Tensor):  # timm's EvoNorms keep none
            found["drift of means"] = _rms((aux["running_mean"] - mean) / (variance + eps).sqrt())
        found["drift of variances"] = _rms(((aux["running_var"] + eps) / (variance + eps)).log())
    if list(layer.parameters(recurse=False)):
        ours, theirs = (_affine(half) for half in (layer, layer.aux))
        found["drift of affines"] = float((theirs - ours).norm() / ours.norm())
    return found


def _affine(half: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in half.parameters(recurse=False)])


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
