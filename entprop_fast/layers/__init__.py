"""Offer dual norms, the routes through them, and conversion to and from plain networks."""

from entprop_fast.layers.batch_norms import DualBatchNorm2d, DualSyncBatchNorm
from entprop_fast.layers.conversion import convert_dual_norm, strip_auxiliary
from entprop_fast.layers.layer_norms import DualLayerNorm
from entprop_fast.layers.routing import route
from entprop_fast.layers.update_bn import update_bn

__all__ = [
    "DualBatchNorm2d",
    "DualLayerNorm",
    "DualSyncBatchNorm",
    "convert_dual_norm",
    "route",
    "strip_auxiliary",
    "update_bn",
]
