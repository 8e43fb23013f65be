"""Find who holds the graph of an earlier backward pass, which may keep steps from being captured.

A parameter's gradient is added up by a node that belongs to the stream on which it was made, and
lives as long as any graph that reaches it. CUDA forbids a capture to go to another stream.
"""

import gc
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from entprop_fast.capture.autograd_graph import MOST_NODES, walk

_SEEN = "entprop_fast: alive"


def describe_holder(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Say what holds nodes of the parameters' gradients while no pass runs, or return None.

    Args:
        named: the parameters, by the names that the answer may use.
    """
    held = held_parameters(named)
    if not held:
        return None
    names = list(held)
    which = names[0] if len(held) == 1 else f"{len(held)} parameters ({names[0]}, ...)"
    by = _describe(held.values())
    return f"{by} holds the graph of an earlier pass, with the gradient nodes of {which}"


def held_parameters(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return the parameters, by name, whose gradient's node outlives the passes that made it."""
    learned = {name: t for name, t in named if t.requires_grad and t.is_leaf}
    for tensor in learned.values():
        _notes(tensor)[_SEEN] = True  # gone with the node, unless somebody holds that
    return {name: tensor for name, tensor in learned.items() if _notes(tensor).pop(_SEEN, False)}


def _notes(parameter: Tensor) -> dict[str, Any]:
    """Return what a user may keep at the node of a parameter's gradient, made if there is none."""
    with torch.enable_grad():
        notes: Any = get_gradient_edge(parameter).node.metadata  # typed as a method, but is none
    return cast("dict[str, Any]", notes)


def _describe(parameters: Iterable[Tensor]) -> str:
    """Describe a tensor whose graph ends in one of the parameters, as far as one is found.

    Its variable is not looked for: Python keeps what a frame's locals were read as.
    """
    wanted = {id(parameter) for parameter in parameters}
    seen: set[Node] = set()
    for tensor in _with_graph():
        if _reaches(tensor, wanted, seen):
            made_by = type(tensor.grad_fn).__name__
            return f"a tensor of shape {tuple(tensor.shape)} from {made_by}"
        if len(seen) >= MOST_NODES:
            return "something"
    return "something other than a tensor, such as a DistributedDataParallel made before the step"


def _with_graph() -> list[Tensor]:
    # No generator: it would be one of those objects, and hold all of them until a collection.
    # No subclass: it may run code of its own.
    return [one for one in gc.get_objects() if type(one) is Tensor and not one.is_leaf]


def _reaches(tensor: Tensor, wanted: set[int], seen: set[Node]) -> bool:
    """Return whether the graph of a tensor ends in a parameter with one of these ids.

    Args:
        tensor: whose graph is looked through.
        wanted: the ids.
        seen: the nodes of earlier graphs, which end in none of them; those of this one are added.
    """
    return any(id(getattr(node, "variable", None)) in wanted for node in walk(tensor, seen))
