"""Convert a plain network to one with dual norms, and back."""

import sys
import warnings
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize

from entprop_fast.layers.batch_norms import DualBatchNorm2d, DualSyncBatchNorm
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.halves import Ties, known_ties, make_auxiliary
from entprop_fast.layers.layer_norms import DualLayerNorm
from entprop_fast.layers.routing import lost_routing
from entprop_fast.layers.torch_quirks import (
    base_class,
    rebase,
    recomputed_by_others,
    unwatch_loading,
    watch_loading,
)
from entprop_fast.layers.unconverted import Unconverted, looks_like_norm
from entprop_fast.torch_internals import children_of

ModelT = TypeVar("ModelT", bound=nn.Module)


def convert_dual_norm(model: ModelT) -> ModelT:
    """Give every norm of `model` an auxiliary half, copied from the norm as it stands.

    Works in place and returns `model`. Converted are `nn.BatchNorm2d`, `nn.SyncBatchNorm` (process
    group kept), `nn.LayerNorm`, and timm's `BatchNormAct2d` (activation and drop kept),
    `LayerNorm`, `LayerNorm2d` and `SplitBatchNorm2d` (its first auxiliary norm becomes the half).
    Modules, their parameters, buffers, hooks and attributes keep their identity; calling it again
    changes nothing. Make the optimizer afterwards, so that it holds the auxiliary parameters.

    A norm that torch's pruning, weight or spectral norm or a parametrisation works on gets a half
    that a copy of it works on. Norms that share a parameter get halves that share theirs.

    Args:
        model: any network; a bare norm is converted itself.

    Returns:
        `model`, a plain checkpoint of which still loads (it fills both halves).

    Raises:
        ValueError: `model` has no norm that can be converted; names what it has.

    Warns:
        UserWarning: names the norms left alone, each class once with its count: those of other
            classes, by torch's base classes or by name (`FrozenBatchNorm2d`, `RmsNorm`, ...), and
            norms whose forward or tensors somebody has replaced. Every route shares them.
    """
    conversions, left, joined = _conversions(), Unconverted(), Unconverted()
    ties: Ties = {}
    for module in model.modules():
        if isinstance(module, DualNorm):
            ties.update(known_ties(module, module.aux))
    inside: set[int] = set()  # of an auxiliary half or a parametrisation: no norms of the model's
    for name, module in list(model.named_modules()):
        if id(module) in inside:
            continue
        if isinstance(module, parametrize.ParametrizationList):
            inside.update(map(id, module.modules()))
        dual_class = _dual_class(module, conversions)
        why = "" if dual_class is None else _why_not(module, dual_class)
        if dual_class is not None and not why:
            halves = children_of(module).get(dual_class.aux_name)
            if isinstance(halves, nn.ModuleList) and len(halves) > 1:
                joined.add(name, module)
            inside.update(map(id, halves.modules() if halves else ()))
            _convert(module, dual_class, ties)
        if isinstance(module, DualNorm):
            inside.update(map(id, module.aux.modules()))
        elif looks_like_norm(module):
            left.add(name, module, why)
    if not any(isinstance(module, DualNorm) for module in model.modules()):
        known = ", ".join(sorted({cls.__name__ for cls in conversions}))
        found = f"; it has {left}" if left else ""
        raise ValueError(f"model has no norm layer that can be made dual ({known}){found}")
    warned = []
    if left:
        warned.append(f"left without an auxiliary half, so that all routes share it: {left}")
    if joined:
        warned.append(f"auxiliary norms after the first were dropped: {joined}")
    if warned:
        warnings.warn("; ".join(warned), stacklevel=2)
    watch_loading(model)
    return model


def strip_auxiliary(model: ModelT) -> ModelT:
    """Drop the auxiliary halves: the plain network, for deployment (docs/algorithm.md, (7)).

    Works in place and returns `model`, whose outputs along the main norms stay what they were, but
    for the rounding of PyTorch's own norms, which take over (with ``ENTPROP_BACKEND=reference`` to
    the bit). A plain network comes back as it is.
    """
    for module in list(model.modules()):
        if isinstance(module, DualNorm):
            delattr(module, module.aux_name)
            for name in module.transient:
                module.__dict__.pop(name, None)
            rebase(module, module.plain_class)
        elif lost_routing(module):
            del module.aux_bn
        unwatch_loading(module)
    return model


def _conversions() -> dict[type[nn.Module], type[DualNorm]]:
    classes: list[type[DualNorm]] = [DualBatchNorm2d, DualSyncBatchNorm, DualLayerNorm]
    if "timm.layers" in sys.modules:  # a model with timm's norms has imported it
        from entprop_fast.layers import timm_norms

        classes += [
            timm_norms.DualBatchNormAct2d,
            timm_norms.DualSyncBatchNormAct,
            timm_norms.DualTimmLayerNorm,
            timm_norms.DualTimmLayerNorm2d,
        ]
    return {cls.plain_class: cls for cls in classes}


def _dual_class(
    module: nn.Module, conversions: dict[type[nn.Module], type[DualNorm]]
) -> type[DualNorm] | None:
    cls = base_class(module)
    if cls not in conversions and "timm.layers" in sys.modules:
        from entprop_fast.layers.timm_norms import plain_class_of_split

        cls = plain_class_of_split(module) or cls
    return conversions.get(cls)


def _why_not(norm: nn.Module, dual_class: type[DualNorm]) -> str:
    """Tell what keeps a `norm` of a known class from being converted; empty where nothing does."""
    if "forward" in vars(norm):
        return "with a forward of its own"
    if name := recomputed_by_others(norm):
        return f"whose {name} something else computes"
    halves = children_of(norm).get(dual_class.aux_name)
    first = next(iter(halves.children()), None) if isinstance(halves, nn.ModuleList) else halves
    if halves is not None and not isinstance(first, dual_class.norm_class):
        return f"with a child {dual_class.aux_name} of its own"
    return ""


def _convert(norm: nn.Module, dual_class: type[DualNorm], ties: Ties) -> None:
    half = children_of(norm).get(dual_class.aux_name)
    if isinstance(half, nn.ModuleList):  # timm's split norm
        half = half[0]
        norm.__dict__.pop("num_splits", None)
    if half is None:
        half = make_auxiliary(norm, dual_class.half_class, ties)
    else:  # torch's or timm's converter leaves it there, as another class
        children_of(half).pop(dual_class.aux_name, None)  # timm's gives the half halves of its own
        half.__dict__.pop("num_splits", None)
        rebase(half, dual_class.half_class)
    children_of(norm)[dual_class.aux_name] = half
    rebase(norm, dual_class)
