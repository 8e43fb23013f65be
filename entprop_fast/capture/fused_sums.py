"""Add a weight's gradient of a later pass to that of an earlier one without upcasting it first.

Under autocast a weight's gradient comes in bfloat16. Autograd upcasts it in the node of the cast
and adds it in the node of the weight: two launches, and one float32 copy that is written and read
again. Here the node of the cast is given nothing, and its gradient is added as it is.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from entprop_fast.capture.autograd_graph import MOST_NODES, walk
from entprop_fast.torch_internals import running_backward

# Classes of nodes: a function of somebody's own may have any `name` and any `variable`.
_CAST = "ToCopyBackward0"  # autocast's casts; under another name they would be left alone
_SUM = "AccumulateGrad"


def fuse_sums(loss: Tensor) -> None:
    """Prepare the backward pass of a loss, of weights that have no hooks.

    A hook on a weight would be given None for the gradient. Sums are the same to the bit: one is
    left to autograd where a pass uses a weight in several ways, whose gradients it adds first.
    """
    casts = _only_casts(loss)
    if loss.grad_fn is None or not casts:
        return
    sums = _Sums()
    loss.grad_fn.register_prehook(sums.begin)
    for node, weight in casts.items():
        node.register_prehook(_Add(sums, weight))


class _Sums:
    """Tell one backward pass from others that go through its casts.

    Casts outlive a pass: the next ones share them, and a network may take a gradient of its own
    through them, in its forward or, as a checkpoint does, within the backward pass.
    """

    def __init__(self) -> None:
        self._number: int | None = None

    def begin(self, _: tuple[Tensor | None, ...]) -> None:
        """Take what runs now, at the loss, for the pass."""
        self._number = running_backward()

    def run(self) -> bool:
        """Return whether the pass is the one that runs now."""
        return self._number is not None and self._number == running_backward()


class _Add:
    """Add what the node of a cast is given to the weight's gradient, and give the node nothing."""

    def __init__(self, sums: _Sums, weight: Tensor) -> None:
        self._sums, self._weight = sums, weight

    def __call__(self, gradients: tuple[Tensor | None, ...]) -> tuple[None] | None:
        """Leave the first gradient to the node, and one that the cast back rounds."""
        (gradient,) = gradients
        weight, total = self._weight, self._weight.grad
        if total is None or total.is_sparse or gradient is None or not self._sums.run():
            return None
        if not total.dtype == weight.dtype == torch.promote_types(weight.dtype, gradient.dtype):
            return None
        total.add_(gradient)
        return (None,)


def _only_casts(loss: Tensor) -> dict[Node, Tensor]:
    """Return the casts through which alone a loss depends on a weight, with their weights."""
    seen: set[Node] = set()
    ways: Counter[Node] = Counter()  # to the node that adds up a weight's gradient
    casts: dict[Node, tuple[Node, Tensor]] = {}
    for node in walk(loss, seen):
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        ways.update(parents)
        if type(node).__name__ == _CAST and [type(one).__name__ for one in parents] == [_SUM]:
            end: Any = parents[0]
            casts[node] = end, end.variable
    if len(seen) >= MOST_NODES:  # there may be other ways
        return {}
    return {cast: weight for cast, (end, weight) in casts.items() if ways[end] == 1}
