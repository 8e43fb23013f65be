"""EntProp: train an image classifier that stays accurate on clean and on shifted images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from entprop_fast.build import BuildInfo, build_info
from entprop_fast.layers import (
    DualBatchNorm2d,
    DualLayerNorm,
    convert_dual_norm,
    route,
    strip_auxiliary,
    update_bn,
)
from entprop_fast.methods import Method, StepResult, create_method

if TYPE_CHECKING:
    from entprop_fast import capture as capture
    from entprop_fast import data as data
    from entprop_fast import layers as layers
    from entprop_fast import methods as methods
    from entprop_fast import models as models
    from entprop_fast import ops as ops
    from entprop_fast import parallel as parallel
    from entprop_fast import reference as reference
    from entprop_fast.lab import evaluation as evaluation
    from entprop_fast.lab.evaluation import Evaluation, EvaluationOptions, evaluate_model
    from entprop_fast.lab.evaluation import metrics as metrics
    from entprop_fast.lab.experiments import studies as studies

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

# What loads when it is first touched: modules by their place, and objects by their module.
_MODULES = {name: name for name in ("data", "models", "reference")} | {
    "evaluation": "lab.evaluation",
    "metrics": "lab.evaluation.metrics",
    "studies": "lab.experiments.studies",
}
_OBJECTS = {
    name: "lab.evaluation" for name in ("Evaluation", "EvaluationOptions", "evaluate_model")
}

if not TYPE_CHECKING:  # a type checker is not to take every misspelt name for a module

    def __getattr__(name: str) -> Any:
        """Load a module or an object of the laboratory on its first use."""
        if name in _MODULES:
            return import_module(f"{__name__}.{_MODULES[name]}")
        if name in _OBJECTS:
            return getattr(import_module(f"{__name__}.{_OBJECTS[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_OBJECTS})
