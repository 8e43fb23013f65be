"""Make auxiliary halves, a second norm as the first one stands, and let halves share a part."""

from collections.abc import Iterator
from typing import Any, Literal, TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize

from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.python_state import copy_attributes
from entprop_fast.layers.recomputed import copy_computations, recomputed_names
from entprop_fast.torch_internals import buffers_of, parameters_of

HalfT = TypeVar("HalfT", bound=nn.Module)
# The clone of each tensor that a half was made from: what two norms share, their halves share.
Ties = dict[int, Tensor]
Part = Literal["affine", "statistics"]
_AFFINE = ("weight", "bias")  # parameters, or buffers of frozen norms


def make_auxiliary(
    norm: nn.Module, cls: type[HalfT], ties: Ties | None = None, *, objects: bool = False
) -> HalfT:
    """Make a `cls` with the settings of `norm`, clones of its tensors, and no hooks.

    Where torch's pruning, weight or spectral norm or a parametrisation computes a tensor of `norm`,
    the half gets a copy of that computation, over clones of what it reads. `objects`: copy every
    attribute, not only tensors and containers.
    """
    ties = {} if ties is None else ties
    half = cls.__new__(cls)
    nn.Module.__init__(half)
    copy_attributes(norm, half, objects=objects)  # but for hooks and registries
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


def share_part(layers: list[DualNorm], part: Part) -> None:
    """Let both halves of each layer have one and the same part: the main half's.

    Keys stay what they are, and `strip_auxiliary` works as ever. Copies share, too, and what is
    moved by ``model.to`` may have to be shared again: what shares already costs a look.

    Args:
        layers: of a model.
        part: "affine", all parameters, or "statistics", all other buffers.

    Raises:
        ValueError: something computes a parameter of a norm anew, as pruning does; nothing has
            changed.
    """
    for layer in layers if part == "affine" else ():
        if recomputed_names(layer) or parametrize.is_parametrized(layer):
            raise ValueError(
                f"{type(layer).__name__}: halves cannot share parameters that are computed anew in "
                "each forward (pruned, weight-normed or parametrised)"
            )
    for layer in layers:
        for ours, theirs in _registries(layer, part):
            for name, tensor in ours.items():
                if theirs.get(name) is not None and theirs[name] is not tensor:
                    theirs[name] = tensor


def shared_parts(layer: DualNorm) -> set[Part]:
    """Return what both halves of a layer share."""
    both: tuple[Part, Part] = ("affine", "statistics")
    return {part for part in both if _shares(layer, part)}


def _shares(layer: DualNorm, part: Part) -> bool:
    pairs = [(ours[n], theirs.get(n)) for ours, theirs in _registries(layer, part) for n in ours]
    held = [(ours, theirs) for ours, theirs in pairs if ours is not None]
    return bool(held) and all(ours is theirs for ours, theirs in held)


def _registries(layer: DualNorm, part: Part) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the registries of a part: names to tensors of the main half, and the other's own."""
    for name, theirs in layer.aux.named_modules():
        ours = layer.get_submodule(name)
        if part == "affine":
            yield parameters_of(ours), parameters_of(theirs)
        named = {k: v for k, v in buffers_of(ours).items() if (k in _AFFINE) == (part == "affine")}
        yield named, buffers_of(theirs)
