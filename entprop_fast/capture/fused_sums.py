"""Add a weight's gradient of a later pass to that of an earlier one without upcasting it first.

Under autocast a weight's gradient comes in bfloat16. Autograd upcasts it in the node of the cast
and adds it in the node of the weight: two launches, and one float32 copy that is written and read
again. Here the node of the cast is given nothing, and its gradient is added as it is.
"""

from collections import Counter
from functools import partial

from torch import Tensor
from torch.autograd.graph import Node

from entprop_fast.capture.autograd_graph import MOST_NODES, walk

_CAST = "ToCopyBackward0"  # what autocast's casts are called; by another name they are left alone


class FusedSums:
    """Prepares the backward passes of one step, whose weights have no hooks.

    A hook on a weight would be given None for the gradient. Sums are the same to the bit: one is
    left to autograd where a pass uses a weight in several ways, whose gradients it adds first.
    """

    def __init__(self) -> None:
        self._fused: set[Tensor] = set()  # weights, in the pass whose backward comes next

    def __call__(self, loss: Tensor) -> None:
        """Prepare the backward pass of a loss, with nothing else in between."""
        casts = _only_casts(loss)
        self._fused = set(casts.values())
        for node, weight in casts.items():
            # Again where an earlier pass made the cast: who comes second is given nothing.
            node.register_prehook(partial(self._add, weight))

    def _add(self, weight: Tensor, gradients: tuple[Tensor | None, ...]) -> tuple[None] | None:
        """Add what a cast's node is given to the weight's gradient; leave the first one to it."""
        (gradient,) = gradients
        if weight.grad is None or gradient is None or weight not in self._fused:
            return None
        weight.grad.add_(gradient)
        return (None,)


def _only_casts(loss: Tensor) -> dict[Node, Tensor]:
    """Return the casts through which alone a loss depends on a weight, with their weights."""
    seen: set[Node] = set()
    ways: Counter[Node] = Counter()  # to the node that adds up a weight's gradient
    casts: dict[Node, tuple[Node, Tensor]] = {}
    for node in walk(loss, seen):
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        ways.update(parents)
        if node.name() == _CAST and len(parents) == 1:
            weight: Tensor | None = getattr(parents[0], "variable", None)
            if weight is not None:
                casts[node] = parents[0], weight
    if len(seen) >= MOST_NODES:  # there may be other ways
        return {}
    return {cast: weight for cast, (end, weight) in casts.items() if ways[end] == 1}
