"""EntProp: train an image classifier that stays accurate on clean and on shifted images."""

from entprop_fast.build import BuildInfo, build_info
from entprop_fast.evaluation import Evaluation, EvaluationOptions, evaluate_model
from entprop_fast.layers import (
    DualBatchNorm2d,
    DualLayerNorm,
    convert_dual_norm,
    route,
    strip_auxiliary,
    update_bn,
)
from entprop_fast.methods import Method, StepResult, create_method

__version__ = "0.1.0"

__all__ = [
    "BuildInfo",
    "DualBatchNorm2d",
    "DualLayerNorm",
    "Evaluation",
    "EvaluationOptions",
    "Method",
    "StepResult",
    "build_info",
    "convert_dual_norm",
    "create_method",
    "evaluate_model",
    "route",
    "strip_auxiliary",
    "update_bn",
]
