"""Find what a norm keeps in plain Python attributes, and copy it for a second half."""

import copy
import types
from collections.abc import MutableMapping, MutableSequence, MutableSet
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from entprop_fast.layers.recomputed import recomputed_names

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
# What a forward may write into from call to call.
_CHANGING = (Tensor, np.ndarray, MutableMapping, MutableSequence, MutableSet)
# What halves share: nothing of theirs can change in it, or it belongs to somebody else.
_SHARED: tuple[type[Any], ...] = (
    nn.Module,
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
)
_SHARED += (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


def changing_attribute(norm: nn.Module) -> str | None:
    """Return the name of an attribute, no buffer, that a forward may keep statistics in.

    That are tensors, arrays, lists, dictionaries and sets, also in a tuple; but for the tensors
    that torch's hooks compute.
    """
    known = _OF_EVERY_MODULE.union(recomputed_names(norm))
    return next((k for k, v in vars(norm).items() if k not in known and _changes(v)), None)


def _changes(value: object) -> bool:
    return any(map(_changes, value)) if isinstance(value, tuple) else isinstance(value, _CHANGING)


def copy_attributes(norm: nn.Module, half: nn.Module) -> None:
    """Give `half` the attributes of `norm` that are no module's own, sharing nothing that changes.

    Modules and process groups stay the same ones.

    Raises:
        TypeError: one cannot be copied.
    """
    for name, value in vars(norm).items():
        if name in _OF_EVERY_MODULE:
            continue
        try:
            half.__dict__[name] = _twin(value)
        except Exception as error:  # whatever a class makes of it
            raise TypeError(
                f"{type(norm).__name__}.{name}: expected what copy.deepcopy copies, "
                f"for a second half: {error}"
            ) from error


def _twin(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, _SHARED) or type(value).__module__.startswith("torch."):
        return value
    if type(value) is dict:
        return {key: _twin(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_twin, value))
    return copy.deepcopy(value)
