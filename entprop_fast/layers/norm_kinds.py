"""Decide which dual class a norm gets, and why another gets none.

A half that is a copy and runs its class's own forward on its own rows is right for every norm, also
for one that looks across rows, provided that nothing but its own tensors is kept from call to call.
Of that one can be sure without reading the forward where those tensors are parameters alone, or the
running statistics of known classes; everything else has to be named in `also`.
"""

import re
import sys
from typing import Any

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from entprop_fast.layers.batch_norms import (
    DualBatchNorm1d,
    DualBatchNorm2d,
    DualBatchNorm3d,
)
from entprop_fast.layers.copied_norms import DualCopy
from entprop_fast.layers.derived import dual_class
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.layer_norms import DualLayerNorm
from entprop_fast.layers.python_state import changing_attribute
from entprop_fast.layers.recognition import (
    OF_TORCH,
    is_frozen_class,
    is_vector,
    looks_like_norm,
)
from entprop_fast.layers.recomputed import base_class, own_buffers, recomputed_by_others
from entprop_fast.layers.synchronised import DualSyncBatchNorm, Synchronised, synchronised_class
from entprop_fast.torch_internals import (
    BatchNormBase,
    NormBase,
    children_of,
    parameters_of,
)

KNOWN = "batch, layer, group, RMS and instance norms, of torch and others"
_GRN = re.compile(r"GRN|Grn|GlobalResponseNorm")
# Their running statistics move in training mode and serve in eval mode, like those of batch norms.
_TRACKING_MODULES = {"timm.layers.evo_norm"}

Kind = tuple[Any, str]  # the dual class or None, and why it is None


def kind_of(module: nn.Module, also: tuple[type[nn.Module], ...] = ()) -> Kind:
    """Return the dual class for `module`, or None and, for a norm, what keeps it from having one.

    Args:
        module: of any class, not dual.
        also: classes whose half is a copy whatever they hold.
    """
    cls, found = base_class(module), _conversion(module)
    if found is None:
        asked = issubclass(cls, also)
        if not (asked or looks_like_norm(module)):
            return None, ""
        if not asked and (why := _why_no_copy(module)):
            return None, why
        found = dual_class(DualCopy, cls, _aux_name(cls, frozen=is_frozen_class(module)))
    why = _why_not(module, found)
    return (None if why else found), why


def is_uninitialized(module: nn.Module) -> bool:
    """Return whether `module` is a lazy norm that has seen no input yet."""
    return (
        isinstance(module, LazyModuleMixin)
        and isinstance(module, OF_TORCH)
        and bool(module.has_uninitialized_params())
    )


def _conversion(module: nn.Module) -> Any:
    """Return the class for a batch or layer norm of torch or timm, or one with their forward."""
    cls: Any = base_class(module)
    if issubclass(cls, Synchronised) and cls.plain is not None:
        dual = _conversion_of(cls.plain, module)
        return None if dual is None else synchronised_class(dual)
    return _conversion_of(cls, module)


def _conversion_of(cls: Any, module: nn.Module) -> Any:
    classes: list[type[DualNorm]] = [
        DualBatchNorm1d,
        DualBatchNorm2d,
        DualBatchNorm3d,
        DualSyncBatchNorm,
        DualLayerNorm,
    ]
    if "timm.layers" in sys.modules:  # a model with timm's norms has imported it
        from entprop_fast.layers import timm_norms

        classes += [timm_norms.DualBatchNormAct2d, timm_norms.DualSyncBatchNormAct]
        cls = timm_norms.plain_class_of_split(module) or cls
    for known in classes:
        plain: Any = known.plain_class
        if cls is plain:
            return known
        if issubclass(cls, plain) and cls.forward is plain.forward:
            return dual_class(known, cls)
    return None


def _aux_name(cls: type[nn.Module], *, frozen: bool) -> str:
    if issubclass(cls, nn.LayerNorm):
        return "aux_ln"
    return "aux_bn" if frozen or issubclass(cls, BatchNormBase) else "aux_norm"


def _why_no_copy(norm: nn.Module) -> str:
    """Tell what makes it unsure that a copy of `norm` is all that its auxiliary half needs."""
    cls = base_class(norm)
    if isinstance(norm, BatchNormBase) and cls.forward is not BatchNormBase.forward:
        return "with a forward of its own"
    if _GRN.search(cls.__name__):
        return "that is dual on request"
    if own_buffers(norm) and not (
        isinstance(norm, NormBase) or is_frozen_class(norm) or cls.__module__ in _TRACKING_MODULES
    ):
        return "with buffers"
    if (
        not _has_forward_of_torch(cls)
        and not recomputed_by_others(norm)  # which says more
        and (name := changing_attribute(norm))
    ):
        return f"that may keep something in its {name}"
    if any(map(_is_more, children_of(norm).values())):
        return "with layers inside"
    parameters = parameters_of(norm).values()
    if not isinstance(norm, OF_TORCH) and not all(p is None or is_vector(p) for p in parameters):
        return "with more than a value a channel"
    return ""


def _is_more(child: nn.Module | None) -> bool:
    """Return whether a norm's child is more than an activation, a dropout, a parametrisation."""
    if child is None or isinstance(next(child.children(), None), parametrize.ParametrizationList):
        return False
    return (
        next(child.buffers(), None) is not None
        or not all(map(is_vector, child.parameters()))
        or any(map(looks_like_norm, child.modules()))
        or any(map(changing_attribute, child.modules()))
    )


def _has_forward_of_torch(cls: type[nn.Module]) -> bool:
    return any(issubclass(cls, base) and cls.forward is base.forward for base in OF_TORCH)


def _why_not(norm: nn.Module, dual: type[DualNorm]) -> str:
    """Tell what keeps a `norm` of a known class from being converted; empty where nothing does."""
    if "forward" in vars(norm):
        return "with a forward of its own"
    if name := recomputed_by_others(norm):
        return f"whose {name} something else computes"
    halves = children_of(norm).get(dual.aux_name)
    first = next(iter(halves.children()), None) if isinstance(halves, nn.ModuleList) else halves
    if halves is not None and not isinstance(first, dual.norm_class):
        return f"with a child {dual.aux_name} of its own"
    return ""
