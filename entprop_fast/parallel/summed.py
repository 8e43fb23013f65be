"""Keep gradients that were summed over the processes from being summed once more."""

import contextlib
from collections.abc import Iterable, Iterator

from torch import Tensor
from torch import distributed as dist
from torch.utils.weak import TensorWeakRef


class Summed:
    """Remember which gradients are those of all processes already.

    A mean of gradients alike is themselves; a sum is not. So where `Method.backward` adds to what
    an earlier call has summed, process 0's copy alone goes into the next sum.
    """

    def __init__(self) -> None:
        self._found: dict[Tensor, TensorWeakRef] = {}

    def remember(self, parameters: Iterable[Tensor]) -> None:
        """Take the gradients of `parameters` for those of all processes."""
        found = ((parameter, parameter.grad) for parameter in parameters)
        self._found = {p: TensorWeakRef(grad) for p, grad in found if grad is not None}

    def forget(self) -> None:
        """Remember nothing: the gradients are about to be dropped."""
        self._found = {}

    @contextlib.contextmanager
    def once(self) -> Iterator[None]:
        """Surround what adds to gradients: from then on they are of this process alone again.

        After an error they are what they were.
        """
        before, self._found = self._found, {}
        held = [(p, p.grad) for p, ref in before.items() if p.grad is not None and p.grad is ref()]
        if dist.get_rank() == 0:
            held.clear()
        for parameter, _ in held:
            parameter.grad = None
        try:
            yield
        except BaseException:
            self._found = before
            for parameter, grad in held:
                parameter.grad = grad
            raise
