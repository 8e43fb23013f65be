"""Convert a plain network to one with dual norms, and back."""

import warnings
from collections.abc import Iterable
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize

from entprop_fast.layers.copied_norms import DualCopy, make_copy
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.fusion import fuse_norms, unfuse_norms
from entprop_fast.layers.halves import Ties, known_ties, make_auxiliary
from entprop_fast.layers.norm_kinds import KNOWN, is_uninitialized, kind_of
from entprop_fast.layers.recognition import looks_like_norm
from entprop_fast.layers.recomputed import rebase
from entprop_fast.layers.routing import lost_routing
from entprop_fast.layers.synchronised import Synchronised
from entprop_fast.layers.torch_quirks import unwatch_loading, watch_loading
from entprop_fast.layers.unconverted import WAY_OUT, Unconverted
from entprop_fast.sharding import refuse_sharded
from entprop_fast.torch_internals import children_of

ModelT = TypeVar("ModelT", bound=nn.Module)


class NoNorms(ValueError):
    """A model has no norm that can be made dual."""


def convert_dual_norm(
    model: ModelT, also: type[nn.Module] | Iterable[type[nn.Module]] = (), *, fuse: bool = False
) -> ModelT:
    """Give every norm of `model` an auxiliary half, copied from the norm as it stands.

    Works in place and returns `model`. Converted are batch norms of 1, 2 and 3 dimensions,
    synchronised (process group kept) and frozen ones, layer, group, RMS and instance norms, and
    what other libraries made of these: subclasses, and modules called a norm that hold nothing but
    a value or two a channel, such as timm's `RmsNorm2d` and Hugging Face's `LlamaRMSNorm`, or the
    known running statistics of timm's `EvoNorm2dB0` (activation, drop and layout kept). timm's
    `SplitBatchNorm2d` gives its first auxiliary norm. Modules, their parameters, buffers, hooks
    and attributes keep their identity; calling it again changes nothing. Make the optimizer
    afterwards, so that it holds the auxiliary parameters.

    A norm that torch's pruning, weight or spectral norm or a parametrisation works on gets a half
    that a copy of it works on. Norms that share a parameter get halves that share theirs.

    Args:
        model: any network; a bare norm is converted itself.
        also: further classes, with their subclasses, whose half is to be a copy of the module (a
            global response norm, a norm of your own): each half runs the class's forward on its own
            rows, which are the first dimension of its first argument. What it keeps from call to
            call has to be in its parameters, buffers or attributes.
        fuse: let 2-d batch norms add a block's shortcut and apply its ReLU in their own pass, where
            torch.fx finds that it is exact: `entprop_fast.layers.fused_norms` tells where, and why
            not elsewhere. Blocks keep their modules, keys and hooks and, but for a subclass of the
            same name, their class; strip_auxiliary undoes it, and an unpickled model is not fused.

    Returns:
        `model`, a plain checkpoint of which still loads (it fills both halves).

    Raises:
        TypeError: `also` holds something else than classes of modules, or an attribute of a norm
            whose half is a copy cannot be copied (named).
        ValueError: `model` has no norm that can be converted (names what it has), none of a class
            in `also`, a lazy norm that has seen no input yet, or is split over processes.

    Warns:
        UserWarning: names the norms left alone, each class once with its count: by torch's base
            classes or by name, norms with a forward, buffers or state of their own, global response
            norms, and norms whose forward or tensors somebody has replaced. Every route shares
            them.

    Example:
        >>> model = convert_dual_norm(torchvision.models.resnet18())
        >>> model = convert_dual_norm(my_network, also=(MyNorm,))
        >>> entprop_fast.norm_report(model)  # which norm is dual, shared or frozen
    """
    refuse_sharded(model, "convert_dual_norm", "convert first, then call fully_shard")
    also = _classes(also, model)
    _check_initialized(model)
    left, joined = Unconverted(), Unconverted()
    ties: Ties = {}
    for module in model.modules():
        if isinstance(module, DualNorm):
            ties.update(known_ties(module, module.aux))
    inside: set[int] = set()  # of a half, a parametrisation, a copied norm: none of the model's
    made: list[tuple[nn.Module, type[DualNorm], nn.Module]] = []  # what fails changes nothing
    for name, module in list(model.named_modules()):
        if id(module) in inside:
            continue
        if isinstance(module, parametrize.ParametrizationList):
            inside.update(map(id, module.modules()))
        if not isinstance(module, DualNorm):
            dual_class, why = kind_of(module, also)
            if dual_class is not None:
                halves = children_of(module).get(dual_class.aux_name)
                if isinstance(halves, nn.ModuleList) and len(halves) > 1:
                    joined.add(name, module)
                inside.update(map(id, halves.modules() if halves else ()))
                if issubclass(dual_class, DualCopy):
                    inside.update(map(id, module.modules()))
                made.append((module, dual_class, _half(module, dual_class, ties)))
            elif looks_like_norm(module):
                left.add(name, module, why)
        else:
            own = module.modules() if isinstance(module, DualCopy) else module.aux.modules()
            inside.update(map(id, own))
    if not made and not any(isinstance(module, DualNorm) for module in model.modules()):
        found = f"; it has {left}" if left else ""
        raise NoNorms(f"model has no norm layer that can be made dual ({KNOWN}){found}{WAY_OUT}")
    for norm, dual_class, half in made:
        _attach(norm, dual_class, half)
    warned = []
    if left:
        warned.append(
            f"left without an auxiliary half, so that all routes share it: {left}{WAY_OUT}"
        )
    if joined:
        warned.append(f"auxiliary norms after the first were dropped: {joined}")
    if warned:
        warnings.warn("; ".join(warned), stacklevel=2)
    watch_loading(model)
    if fuse:
        fuse_norms(model)
    return model


def strip_auxiliary(model: ModelT) -> ModelT:
    """Drop the auxiliary halves: the plain network, for deployment (docs/algorithm.md, (7)).

    Works in place and returns `model`, whose outputs along the main norms stay what they were, but
    for the rounding of PyTorch's own norms, which take over (with ``ENTPROP_BACKEND=reference`` to
    the bit). A plain network comes back as it is.

    Raises:
        ValueError: its parameters are split over processes.
    """
    refuse_sharded(
        model,
        "strip_auxiliary",
        "gather its state (torch.distributed.checkpoint.state_dict.get_model_state_dict, with "
        "full_state_dict), load it into a network that is not split, and strip that",
    )
    unfuse_norms(model)
    for module in list(model.modules()):
        if isinstance(module, DualNorm):
            delattr(module, module.aux_name)
            for name in module.transient:
                module.__dict__.pop(name, None)
            _forget_group(module)
            rebase(module, module.plain_class)
        elif lost_routing(module):
            del module.aux_bn
        elif isinstance(module, Synchronised) and module.plain is not None:
            _forget_group(module)
            rebase(module, module.plain)
        unwatch_loading(module)
    return model


def _forget_group(norm: nn.Module) -> None:
    """Leave to torch's synchronised norms alone what they have a use for."""
    if not isinstance(norm, nn.SyncBatchNorm):
        norm.__dict__.pop("process_group", None)


def _classes(
    also: type[nn.Module] | Iterable[type[nn.Module]], model: nn.Module
) -> tuple[type[nn.Module], ...]:
    classes = (also,) if isinstance(also, type) else tuple(also)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise TypeError(f"also={cls!r}: expected classes of norms, subclasses of nn.Module")
        if not any(isinstance(module, cls) for module in model.modules()):
            raise ValueError(f"also={cls.__name__}: model has none; expected classes that it has")
    return classes


def _check_initialized(model: nn.Module) -> None:
    lazy = Unconverted()
    for name, module in model.named_modules():
        if is_uninitialized(module):
            lazy.add(name, module)
    if lazy:
        raise ValueError(
            f"model: {lazy} is not initialised yet: run the model once, model(images), then convert"
        )


def _half(norm: nn.Module, dual_class: type[DualNorm], ties: Ties) -> nn.Module:
    """Return the half that torch's or timm's converter left in `norm`, or a new one."""
    half = children_of(norm).get(dual_class.aux_name)
    if isinstance(half, nn.ModuleList):  # timm's split norm
        return half[0]
    if half is not None:
        return half
    make = make_copy if issubclass(dual_class, DualCopy) else make_auxiliary
    return make(norm, dual_class.half_class, ties)


def _attach(norm: nn.Module, dual_class: type[DualNorm], half: nn.Module) -> None:
    held = children_of(norm).get(dual_class.aux_name)
    if isinstance(held, nn.ModuleList):
        norm.__dict__.pop("num_splits", None)
    if held is not None:  # the half is of another class
        children_of(half).pop(dual_class.aux_name, None)  # timm's gives the half halves of its own
        half.__dict__.pop("num_splits", None)
        rebase(half, dual_class.half_class)
    children_of(norm)[dual_class.aux_name] = half
    rebase(norm, dual_class)
