"""EntProp: train an image classifier that stays accurate on clean and on shifted images."""

from pkgutil import resolve_name
from types import ModuleType
from typing import TYPE_CHECKING, Any

from entprop_fast.build import BuildInfo, build_info
from entprop_fast.layers import (
    DualBatchNorm2d,
    DualLayerNorm,
    convert_dual_norm,
    norm_report,
    route,
    strip_auxiliary,
    synchronise_norms,
    update_bn,
)
from entprop_fast.methods import Method, StepResult, create_method

if TYPE_CHECKING:
    from entprop_fast import augment as augment
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
    from entprop_fast.lab.publish import from_pretrained, load, save_pretrained
    from entprop_fast.lab.training.deploy import NetworkSpec
    from entprop_fast.lab.training.fit import fit
    from entprop_fast.parallel.sharded_checkpoint import load_sharded, save_sharded

__version__ = "0.1.0"

__all__ = [
    "BuildInfo",
    "DualBatchNorm2d",
    "DualLayerNorm",
    "Evaluation",
    "EvaluationOptions",
    "Method",
    "NetworkSpec",
    "StepResult",
    "build_info",
    "convert_dual_norm",
    "create_method",
    "evaluate_model",
    "fit",
    "from_pretrained",
    "load",
    "load_sharded",
    "norm_report",
    "route",
    "save_pretrained",
    "save_sharded",
    "strip_auxiliary",
    "synchronise_norms",
    "update_bn",
]

# What loads when it is first touched, by where it is.
_LAZY = {
    "Evaluation": "lab.evaluation:Evaluation",
    "EvaluationOptions": "lab.evaluation:EvaluationOptions",
    "NetworkSpec": "lab.training.deploy:NetworkSpec",
    "augment": "augment",
    "data": "data",
    "evaluate_model": "lab.evaluation:evaluate_model",
    "evaluation": "lab.evaluation",
    "fit": "lab.training.fit:fit",
    "from_pretrained": "lab.publish:from_pretrained",
    "lab": "lab",
    "load": "lab.publish:load",
    "load_sharded": "parallel.sharded_checkpoint:load_sharded",
    "metrics": "lab.evaluation.metrics",
    "models": "models",
    "reference": "reference",
    "save_pretrained": "lab.publish:save_pretrained",
    "save_sharded": "parallel.sharded_checkpoint:save_sharded",
    "studies": "lab.experiments.studies",
}

if not TYPE_CHECKING:  # a type checker is not to take every misspelt name for a module

    def __getattr__(name: str) -> Any:
        """Load a module or an object on its first use."""
        if name in _LAZY:
            return resolve_name(f"{__name__}.{_LAZY[name]}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    modules = (name for name, value in globals().items() if isinstance(value, ModuleType))
    return sorted({"__version__", *__all__, *_LAZY, *modules})
