"""From a plain network to one with dual norms, and back."""

import sys
import warnings
from typing import Any, TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from entprop_fast.layers.dual_batch_norm import DualBatchNorm2d, DualSyncBatchNorm
from entprop_fast.layers.dual_layer_norm import DualLayerNorm
from entprop_fast.layers.dual_norm import TRANSIENT, DualNorm, make_auxiliary
from entprop_fast.layers.routing import lost_routing

ModelT = TypeVar("ModelT", bound=nn.Module)


def convert_dual_norm(model: ModelT) -> ModelT:
    """Give every norm of `model` an auxiliary half, copied from the norm as it stands.

    Works in place and returns `model`. Converted are `nn.BatchNorm2d`, `nn.SyncBatchNorm` (process
    group kept), `nn.LayerNorm`, and timm's `BatchNormAct2d` (activation and drop kept),
    `LayerNorm` and `LayerNorm2d`. Modules, their parameters, buffers, hooks and attributes keep
    their identity; calling it again changes nothing. Make the optimizer afterwards, so that it
    holds the auxiliary parameters.

    Args:
        model: any network; a bare norm is converted itself.

    Returns:
        `model`, a plain checkpoint of which still loads (it fills both halves).

    Raises:
        ValueError: `model` has no norm that can be converted.

    Warns:
        UserWarning: names the norms left alone: 1-d and 3-d batch norms, and norms whose forward
            may differ from what their base class does.
    """
    conversions = _conversions()
    left_alone = []
    for name, module in list(model.named_modules()):
        if isinstance(module, DualNorm) or _is_half(model, name):
            continue
        dual_class = conversions.get(type(module))
        if dual_class and "forward" not in vars(module):  # where somebody has put their own
            _convert(module, dual_class)
        elif isinstance(module, _BatchNorm | nn.LayerNorm):
            left_alone.append(f"{name or 'model'} ({type(module).__name__})")
    if not any(isinstance(module, DualNorm) for module in model.modules()):
        known = ", ".join(sorted({cls.__name__ for cls in conversions}))
        found = f"; it has {', '.join(left_alone)}" if left_alone else ""
        raise ValueError(f"model has no norm layer that can be made dual ({known}){found}")
    if left_alone:
        warnings.warn(f"left without an auxiliary half: {', '.join(left_alone)}", stacklevel=2)
    if not any(map(_is_ours, model._load_state_dict_pre_hooks.values())):
        model.register_load_state_dict_pre_hook(_report_partial)  # type: ignore[no-untyped-call]
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
            for name in TRANSIENT:
                module.__dict__.pop(name, None)
            module.__class__ = module.plain_class  # type: ignore[assignment]
        elif lost_routing(module):
            del module.aux_bn
        hooks = module._load_state_dict_pre_hooks
        for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
            del hooks[key]
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


def _convert(norm: nn.Module, dual_class: type[DualNorm]) -> None:
    aux_name = dual_class.aux_name
    if aux_name not in norm._modules:  # torch's convert_sync_batchnorm leaves it there
        norm.add_module(aux_name, make_auxiliary(norm, dual_class.norm_class))
    # Changing the class in place keeps every reference to the module, its hooks and attributes.
    norm.__class__ = dual_class


def _is_half(model: nn.Module, name: str) -> bool:
    """Whether the module `name` is the auxiliary half of its parent."""
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    return isinstance(owner, DualNorm) and bool(name) and child == owner.aux_name


def _is_ours(hook: Any) -> bool:
    return getattr(hook, "hook", None) is _report_partial


def _report_partial(
    model: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    *_: object,
) -> None:
    """List as missing what a checkpoint with some auxiliary entries lacks of the others.

    Each layer on its own would fill an absent auxiliary half from the main one; right for a plain
    checkpoint, wrong for a damaged dual one, which only the whole model can tell apart. A layer
    leaves alone what is listed here.
    """
    wanted = [
        f"{prefix}{name}{'.' if name else ''}{module.aux_name}.{key}"
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, DualNorm)
        for key in module.aux.state_dict()
    ]
    missing = [key for key in wanted if key not in state_dict]
    if len(missing) < len(wanted):
        missing_keys.extend(key for key in missing if key not in missing_keys)
