"""Synchronise the batch norms of a network."""

import warnings
from typing import Any, TypeVar

from torch import nn

from entprop_fast.layers.batch_norms import FusedBatchNorm
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.norm_kinds import is_uninitialized
from entprop_fast.layers.recognition import is_frozen_class
from entprop_fast.layers.recomputed import base_class, rebase
from entprop_fast.layers.synchronised import Synchronised, synchronised_class
from entprop_fast.layers.unconverted import Unconverted
from entprop_fast.torch_internals import BatchNormBase, buffers_of

ModelT = TypeVar("ModelT", bound=nn.Module)
_FORWARDS = (BatchNormBase.forward, nn.SyncBatchNorm.forward)


def synchronise_norms(model: ModelT, process_group: Any = None) -> ModelT:
    """Let every batch norm of `model`, dual or not, normalise the rows of all processes together.

    Works in place and returns `model`; norms, their tensors, keys, hooks and training flags stay
    what they are, and so does an optimizer that holds the parameters. In training a norm exchanges
    its statistics once in the forward, for both halves, and once in the backward; in eval mode, and
    where there is one process, it computes what it did. Every process has to run the same forwards
    (docs/distributed.md). Calling it again changes the group alone; `strip_auxiliary` undoes it.

    Args:
        model: any network; without a batch norm nothing changes.
        process_group: whose rows are one batch; None for the default group, looked up at each call,
            or the one that a `nn.SyncBatchNorm` has.

    Returns:
        `model`.

    Raises:
        ValueError: `model` has a lazy norm that has seen no input yet.

    Warns:
        UserWarning: names the norms left alone that have statistics of a batch: with a forward of
            their own.
    """
    left, lazy = Unconverted(), Unconverted()
    found: list[nn.Module] = []
    halves = {id(module.aux) for module in model.modules() if isinstance(module, DualNorm)}
    for name, module in model.named_modules():
        if is_uninitialized(module):
            lazy.add(name, module)
        elif id(module) in halves:
            continue
        elif _can_be_synchronised(module):
            found.append(module)
        elif _has_statistics(module):
            left.add(name, module)
    if lazy:
        raise ValueError(
            f"model: {lazy} is not initialised yet: run the model once, model(images), first"
        )
    for module in found:
        _synchronise(module, process_group)
    if left:
        warnings.warn(f"left unsynchronised, with statistics of each process: {left}", stacklevel=2)
    return model


def _can_be_synchronised(module: nn.Module) -> bool:
    if isinstance(module, Synchronised | FusedBatchNorm):
        return True
    own = "forward" in vars(module)
    return isinstance(module, BatchNormBase) and base_class(module).forward in _FORWARDS and not own


def _has_statistics(module: nn.Module) -> bool:
    """Return whether `module` has running statistics that move."""
    return "running_mean" in buffers_of(module) and not is_frozen_class(module)


def _synchronise(norm: nn.Module, group: Any) -> None:
    parts = (norm, norm.aux) if isinstance(norm, DualNorm) else (norm,)
    for part in parts:
        cls: Any = base_class(part)
        rebase(part, synchronised_class(cls))
        if group is not None:
            part.__dict__["process_group"] = group
