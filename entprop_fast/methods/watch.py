"""Whether model, criterion and optimizer still are what a method accepted.

The reads are C-level maps over lists made once, as those of `entprop_fast.capture.frozen`.
"""

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

_REQUIRES_GRAD = attrgetter("requires_grad")
_PARAMS = itemgetter("params")


class Watch:
    """The modules and parameters of a step at the moment when this is made.

    Args:
        model: the network.
        criterion: its loss, or None.
        optimizer: whose groups count.
    """

    def __init__(self, model: nn.Module, criterion: nn.Module | None, optimizer: Optimizer) -> None:
        self._roots = (model, criterion, optimizer)
        modules = [m for root in (model, criterion) if root is not None for m in root.modules()]
        self._registries: list[dict[str, Any]] = [
            registry for module in modules for registry in (module._modules, module._parameters)
        ]
        # Alive, so that no other object can take over an id that is compared.
        self._held = self._entries()
        self._ids = list(map(id, self._held))
        self._parameters = [entry for entry in self._held if isinstance(entry, nn.Parameter)]
        self._asking = self._now_asking()

    def replaced(self, model: nn.Module, criterion: nn.Module | None, optimizer: Optimizer) -> bool:
        """Whether one of these, or a module or parameter of them, is another than before."""
        roots = (model, criterion, optimizer)
        if any(now is not before for now, before in zip(roots, self._roots, strict=True)):
            return True
        return list(map(id, self._entries())) != self._ids

    def asks_otherwise(self) -> bool:
        """Whether other parameters than before ask for a gradient."""
        return self._now_asking() != self._asking

    def _entries(self) -> list[object]:
        groups: Iterable[list[Tensor]] = map(_PARAMS, self._roots[2].param_groups)
        modules = chain.from_iterable(map(dict.values, self._registries))
        return [*modules, *chain.from_iterable(groups)]

    def _now_asking(self) -> list[bool]:
        return list(map(_REQUIRES_GRAD, self._parameters))
