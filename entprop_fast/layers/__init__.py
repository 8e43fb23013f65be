"""Dual norms, the routes through them, and conversion to and from plain networks."""

from entprop_fast.layers.conversion import convert_dual_norm, strip_auxiliary
from entprop_fast.layers.dual_batch_norm import DualBatchNorm2d, DualSyncBatchNorm
from entprop_fast.layers.dual_layer_norm import DualLayerNorm
from entprop_fast.layers.routing import route
from entprop_fast.layers.update import update_bn

__all__ = [
    "DualBatchNorm2d",
    "DualLayerNorm",
    "DualSyncBatchNorm",
    "convert_dual_norm",
    "route",
    "strip_auxiliary",
    "update_bn",
]
