"""Train by one of several methods: one file each, all called the same way."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from entprop_fast.methods.advprop import AdvProp
from entprop_fast.methods.base import Method
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.cutmix import CutMix
from entprop_fast.methods.entprop import EntProp, default_eps, default_mixup
from entprop_fast.methods.entprop_pipelined import EntPropPipelined
from entprop_fast.methods.fast_advprop import FastAdvProp
from entprop_fast.methods.free_at import FreeAT
from entprop_fast.methods.gpaco import GPaCo
from entprop_fast.methods.mixprop import MixProp
from entprop_fast.methods.mixup import MixUp
from entprop_fast.methods.noisymix import NoisyMix
from entprop_fast.methods.passes import StepResult
from entprop_fast.methods.vanilla import Vanilla
from entprop_fast.name_errors import unknown
from entprop_fast.options import options_of
from entprop_fast.parallel.wrapping import warn_unless_wrapped

_CLASSES: tuple[type[Method], ...] = (
    EntProp,
    Vanilla,
    MixUp,
    CutMix,
    MixProp,
    FastAdvProp,
    AdvProp,
    FreeAT,
    EntPropPipelined,
    NoisyMix,
)
METHODS: dict[str, type[Method]] = {cls.name: cls for cls in _CLASSES}

__all__ = [
    "METHODS",
    "AdvProp",
    "CommonOptions",
    "CutMix",
    "EntProp",
    "EntPropPipelined",
    "FastAdvProp",
    "FreeAT",
    "GPaCo",
    "Method",
    "MixProp",
    "MixUp",
    "NoisyMix",
    "StepResult",
    "Vanilla",
    "create_method",
    "default_eps",
    "default_mixup",
    "method_options",
    "needs_dual_norms",
]


def create_method(name: str, model: nn.Module, optimizer: Optimizer, **options: Any) -> Method:
    """Make a training method: ``result = method(images, labels)`` runs one optimiser step.

    Args:
        name: one of `METHODS`.
        model: the network, in training mode; converted by `convert_dual_norm` where the method
            `needs_dual_norms`; for several processes in a `DistributedDataParallel`.
        optimizer: holds every trainable parameter of `model`.
        **options: see `method_options`, or ``help(METHODS[name])`` for a sentence on each.

    Raises:
        ValueError: an unknown name, a setting out of its range, or a model or optimizer that the
            method cannot train; the message says what to change.
        TypeError: an option that the method does not have, or a value of the wrong type.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    method = METHODS[name](model, optimizer, **options)
    warn_unless_wrapped(model, stacklevel=2)
    return method


def method_options(name: str) -> dict[str, Any]:
    """Return the options of the method `name` and their defaults.

    Raises:
        ValueError: there is no such method.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return {one.name: one.default for one in options_of(METHODS[name].Options).values()}


def needs_dual_norms(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether the method `name` with these options trains a network with dual norms.

    Raises:
        ValueError: there is no such method.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name].needs_dual_norms and options.get("norms") != "shared"
