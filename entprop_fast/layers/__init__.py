"""Offer dual norms, the routes through them, and conversion to and from plain networks."""

from entprop_fast.layers.batch_norms import (
    DualBatchNorm1d,
    DualBatchNorm2d,
    DualBatchNorm3d,
)
from entprop_fast.layers.conversion import convert_dual_norm, strip_auxiliary
from entprop_fast.layers.fusion import Fusion, fused_norms
from entprop_fast.layers.layer_norms import DualLayerNorm
from entprop_fast.layers.norm_report import NormEntry, norm_report
from entprop_fast.layers.routing import route
from entprop_fast.layers.synchronise import synchronise_norms
from entprop_fast.layers.synchronised import DualSyncBatchNorm, Synchronised
from entprop_fast.layers.update_bn import update_bn

__all__ = [
    "DualBatchNorm1d",
    "DualBatchNorm2d",
    "DualBatchNorm3d",
    "DualLayerNorm",
    "DualSyncBatchNorm",
    "Fusion",
    "NormEntry",
    "Synchronised",
    "convert_dual_norm",
    "fused_norms",
    "norm_report",
    "route",
    "strip_auxiliary",
    "synchronise_norms",
    "update_bn",
]
