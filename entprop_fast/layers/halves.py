"""Auxiliary halves: a second norm as the first one stands, sharing nothing with it."""

import copy
from typing import Any, ClassVar, Self, TypeVar, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

HalfT = TypeVar("HalfT", bound=nn.Module)
TensorT = TypeVar("TensorT", bound=Tensor)
# The clone of each tensor that a half was made from: what two norms share, their halves share.
Ties = dict[int, Tensor]

_RECOMPUTING = (prune.BasePruningMethod, WeightNorm, SpectralNorm)  # pre-hooks of torch's own
_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Routed(nn.Module):
    """A module of whose attributes some belong to a route, and not to its copies and pickles."""

    transient: ClassVar[tuple[str, ...]]

    def _lasting(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in self.transient}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the route behind."""
        return self._lasting()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Leave the route behind; a parametrised module copies itself by this, or not at all."""
        twin = self.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self._lasting(), memo))
        return twin


def make_auxiliary(norm: nn.Module, cls: type[HalfT], ties: Ties | None = None) -> HalfT:
    """A `cls` with the settings of `norm`, clones of its parameters and buffers, and no hooks.

    Where torch's pruning, weight or spectral norm or a parametrisation computes a tensor of `norm`,
    the half gets a copy of that computation, over clones of what it reads.
    """
    ties = {} if ties is None else ties
    aux = cls.__new__(cls)
    nn.Module.__init__(aux)
    own = set(aux.__dict__)  # hooks and registries, never shared with norm
    aux.__dict__.update({key: value for key, value in norm.__dict__.items() if key not in own})
    aux.training = norm.training
    for name, parameter in norm._parameters.items():
        aux.register_parameter(name, None if parameter is None else _clone(parameter, ties))
    for name, buffer in norm._buffers.items():
        aux.register_buffer(name, None if buffer is None else _clone(buffer, ties))
    for hook in _recomputing(norm):
        aux.register_forward_pre_hook(copy.deepcopy(hook))
        # As it stands; the hook computes it anew at the next forward.
        aux.__dict__[_computed(hook)] = getattr(norm, _computed(hook)).detach().clone()
    if parametrize.is_parametrized(norm):
        aux.parametrizations = copy.deepcopy(norm.parametrizations)
        rebase(aux, cls)
    return aux


def known_ties(main: nn.Module, aux: nn.Module) -> Ties:
    """What an existing half was made from."""
    pairs: Ties = {}
    for mine, theirs in ((main._parameters, aux._parameters), (main._buffers, aux._buffers)):
        for name, tensor in mine.items():
            twin = theirs.get(name)
            if tensor is not None and twin is not None:
                pairs[id(tensor)] = twin
    return pairs


def recomputed_by_others(norm: nn.Module) -> str | None:
    """The name of a tensor of `norm` that is neither its own nor computed as torch's hooks do."""
    known = {_computed(hook) for hook in _recomputing(norm)}
    return next((name for name in _TENSORS if name in vars(norm) and name not in known), None)


def base_class(module: nn.Module) -> type[nn.Module]:
    """The class of `module`, or what torch's parametrisations derived it from."""
    cls = type(module)
    return cls.__bases__[0] if parametrize.is_parametrized(module) else cls


def rebase(module: nn.Module, cls: type[nn.Module]) -> None:
    """Make `module` a `cls` in place: every reference to it, its hooks and attributes stay.

    A parametrised module is of a class of its own, whose properties compute the tensors: it gets
    one derived from `cls`.
    """
    module.__class__ = cls
    if parametrize.is_parametrized(module):
        parametrize._inject_new_class(module)
        for name in module.parametrizations:  # type: ignore[union-attr]
            parametrize._inject_property(module, name)


def _recomputing(norm: nn.Module) -> list[prune.BasePruningMethod | WeightNorm | SpectralNorm]:
    return [hook for hook in norm._forward_pre_hooks.values() if isinstance(hook, _RECOMPUTING)]


def _computed(hook: prune.BasePruningMethod | WeightNorm | SpectralNorm) -> str:
    name: str = hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name
    return name


def _clone(tensor: TensorT, ties: Ties) -> TensorT:
    if id(tensor) not in ties:
        clone = tensor.detach().clone()
        if isinstance(tensor, nn.Parameter):
            clone = nn.Parameter(clone, tensor.requires_grad)
        ties[id(tensor)] = clone
    return cast(TensorT, ties[id(tensor)])
