"""Walk through the graph behind a tensor."""

from collections import deque
from collections.abc import Iterator

from torch import Tensor
from torch.autograd.graph import Node

# In torch 2.13 a node that Python has seen is freed within the one before it: a chain of 50,000,
# as sums of losses are that go on for ever, would then overflow the stack.
MOST_NODES = 4000


def walk(tensor: Tensor, seen: set[Node]) -> Iterator[Node]:
    """Yield the nodes that made a tensor, the nearest first, until `MOST_NODES` are in `seen`.

    Args:
        tensor: whose graph it is.
        seen: nodes to leave out, with what led to them; those that were met are added. Alive, so
            that no other node takes the place of one.
    """
    pending = deque([tensor.grad_fn])
    while pending and len(seen) < MOST_NODES:
        node = pending.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        pending += [parent for parent, _ in node.next_functions]
