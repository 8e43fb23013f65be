"""EntProp: train an image classifier that stays accurate on clean and on shifted images."""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from entprop_fast import capture as capture
    from entprop_fast import data as data
    from entprop_fast import evaluation as evaluation
    from entprop_fast import layers as layers
    from entprop_fast import methods as methods
    from entprop_fast import metrics as metrics
    from entprop_fast import models as models
    from entprop_fast import ops as ops
    from entprop_fast import reference as reference
    from entprop_fast import run as run
    from entprop_fast import studies as studies
else:  # a type checker is not to take every misspelt name for a module

    def __getattr__(name: str) -> ModuleType:
        """A module of the package, on its first use: `entprop_fast.models`, say."""
        if name in _modules():
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_modules()})


def _modules() -> set[str]:
    return {one.name for one in iter_modules(__path__) if not one.name.startswith("_")}
