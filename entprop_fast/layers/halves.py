"""Make auxiliary halves: a second norm as the first one stands, sharing nothing with it."""

from typing import Any, TypeVar

from torch import Tensor, nn

from entprop_fast.layers.python_state import copy_attributes
from entprop_fast.layers.recomputed import copy_computations
from entprop_fast.torch_internals import buffers_of, parameters_of

HalfT = TypeVar("HalfT", bound=nn.Module)
# The clone of each tensor that a half was made from: what two norms share, their halves share.
Ties = dict[int, Tensor]


def make_auxiliary(norm: nn.Module, cls: type[HalfT], ties: Ties | None = None) -> HalfT:
    """Make a `cls` with the settings of `norm`, clones of its tensors, and no hooks.

    Where torch's pruning, weight or spectral norm or a parametrisation computes a tensor of `norm`,
    the half gets a copy of that computation, over clones of what it reads.
    """
    ties = {} if ties is None else ties
    half = cls.__new__(cls)
    nn.Module.__init__(half)
    copy_attributes(norm, half)  # but for hooks and registries
    half.training = norm.training
    for name, parameter in parameters_of(norm).items():
        half.register_parameter(name, None if parameter is None else _clone(parameter, ties))
    for name, buffer in buffers_of(norm).items():
        half.register_buffer(name, None if buffer is None else _clone(buffer, ties))
    copy_computations(norm, half)
    return half


def known_ties(main: nn.Module, aux: nn.Module) -> Ties:
    """Return what an existing half was made from."""
    pairs: Ties = {}
    for registry in (parameters_of, buffers_of):
        theirs = registry(aux)
        for name, tensor in registry(main).items():
            twin = theirs.get(name)
            if tensor is not None and twin is not None:
                pairs[id(tensor)] = twin
    return pairs


def _clone(tensor: Any, ties: Ties) -> Any:
    if id(tensor) not in ties:
        clone = tensor.detach().clone()
        if isinstance(tensor, nn.Parameter):
            clone = nn.Parameter(clone, tensor.requires_grad)
        ties[id(tensor)] = clone
    return ties[id(tensor)]
