"""Handle norms whose tensors torch's hooks and parametrisations compute anew."""

import copy

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from entprop_fast.torch_internals import (
    buffers_of,
    call_hooks_of,
    derive_parametrized,
    pruned_name,
)

Recomputing = prune.BasePruningMethod | WeightNorm | SpectralNorm
_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def base_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of `module`, or what torch's parametrisations derived it from."""
    cls = type(module)
    return cls.__bases__[0] if parametrize.is_parametrized(module) else cls


def rebase(module: nn.Module, cls: type[nn.Module]) -> None:
    """Make `module` a `cls` in place: every reference to it, its hooks and attributes stay.

    A parametrised module is of a class of its own, whose properties compute the tensors: it gets
    one derived from `cls`.
    """
    module.__class__ = cls
    if parametrize.is_parametrized(module):
        derive_parametrized(module)


def copy_computations(norm: nn.Module, half: nn.Module) -> None:
    """Let copies of what computes the tensors of `norm` compute those of `half`."""
    for hook in _recomputing(norm):
        half.register_forward_pre_hook(copy.deepcopy(hook))
        # As it stands; the hook computes it anew at the next forward.
        half.__dict__[_computed(hook)] = getattr(norm, _computed(hook)).detach().clone()
    if parametrize.is_parametrized(norm):
        half.parametrizations = copy.deepcopy(norm.parametrizations)
        rebase(half, type(half))


def recomputed_by_others(norm: nn.Module) -> str | None:
    """Return the name of a tensor that is neither the norm's own nor computed by torch's hooks."""
    known = recomputed_names(norm)
    held = [name for name, value in vars(norm).items() if _is_learned(name, value)]
    return next((name for name in held if name not in known), None)


def recomputed_names(norm: nn.Module) -> set[str]:
    """Return the names of the tensors of `norm` that torch's hooks compute."""
    return {_computed(hook) for hook in _recomputing(norm)}


def own_buffers(norm: nn.Module) -> list[str]:
    """Return the names of the buffers of `norm` but for those from which torch's hooks compute."""
    prefixes = tuple(f"{_computed(hook)}_" for hook in _recomputing(norm))  # weight_mask, weight_u
    return [name for name in buffers_of(norm) if not name.startswith(prefixes)]


def _is_learned(name: str, value: object) -> bool:
    return name in _TENSORS or (isinstance(value, Tensor) and value.requires_grad)


def _recomputing(norm: nn.Module) -> list[Recomputing]:
    hooks = (hook for registry in call_hooks_of(norm) for hook in registry.values())
    return [hook for hook in hooks if isinstance(hook, Recomputing)]


def _computed(hook: Recomputing) -> str:
    return pruned_name(hook) if isinstance(hook, prune.BasePruningMethod) else hook.name
