"""Define dual norms whose auxiliary half is a copy and runs the forward of its own class."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.halves import Ties, make_auxiliary
from entprop_fast.layers.python_state import changing_attribute
from entprop_fast.torch_internals import children_of

_COMPUTED = "parametrizations"  # torch's own child, which the half gets a copy of


class DualCopy(DualNorm):
    """Give any norm class an auxiliary half and a route, as a mixin in front of the class.

    Sound whether or not the norm looks across rows: each half runs the class's own forward on its
    own rows, with tensors of its own. Further arguments of a call go along; those with as many
    rows as the first are split with it.
    """

    aux_name = "aux_norm"

    def set_route(self, num_main: int | None, batch: int | None, inside: bool) -> None:
        """Choose the route of the coming forwards, on which the halves share an activation."""
        super().set_route(num_main, batch, inside)
        shared = self.aux.__dict__
        for name, child in children_of(self).items():
            if name in shared:  # it may have been replaced
                shared[name] = child

    def main_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that rows of the main half alone reach."""
        yield from super().main_parameters()
        own = children_of(self.aux)
        for name, child in children_of(self).items():
            if child is not None and name in own and name != _COMPUTED:
                yield from child.parameters()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the norm along the current route; the arguments are those of its class."""
        x: Any = args[0] if args else next(iter(kwargs.values()), None)
        return self.along_route(self.normalise, x, args, kwargs)

    def normalise(
        self,
        x: Tensor,
        num_main: int | None,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Normalise rows ``[0, num_main)`` by the main half, the rest by the auxiliary one."""
        args, kwargs = (x,) if args is None else args, kwargs or {}
        if num_main == 0:  # first, so that an empty batch on "aux" leaves the main half alone
            return self.aux(*args, **kwargs)
        if num_main is None or num_main == x.shape[0]:
            return self.norm_class.forward(self, *args, **kwargs)
        sizes = [num_main, x.shape[0] - num_main]
        parts = [_parts(value, sizes) for value in args]
        named = {key: _parts(value, sizes) for key, value in kwargs.items()}
        main, aux = (
            ([pair[half] for pair in parts], {key: pair[half] for key, pair in named.items()})
            for half in (0, 1)
        )
        ours = self.norm_class.forward(self, *main[0], **main[1])
        return _joined(ours, self.aux(*aux[0], **aux[1]))


def make_copy(norm: nn.Module, cls: type[nn.Module], ties: Ties) -> nn.Module:
    """Make the half of a `DualCopy`: it shares activations that keep nothing, others are copied.

    What is shared is an attribute, no child: it belongs to the main half.
    """
    half = make_auxiliary(norm, cls, ties, objects=True)
    for name, child in children_of(norm).items():
        if name == _COMPUTED:
            continue
        if child is None or _keeps_something(child):
            half.add_module(name, copy.deepcopy(child))
        else:
            half.__dict__[name] = child
    return half


def _keeps_something(module: nn.Module) -> bool:
    tensors = itertools.chain(module.parameters(), module.buffers())
    return any(True for _ in tensors) or any(map(changing_attribute, module.modules()))


def _parts(value: Any, sizes: list[int]) -> Any:
    """Return the rows of both halves where `value` has those of the norm's input, else it twice."""
    if isinstance(value, Tensor) and value.shape[:1] == (sum(sizes),):
        return value.split_with_sizes(sizes)
    return value, value


def _joined(main: Any, aux: Any) -> Any:
    """Join what the halves returned, a tensor or several."""
    if isinstance(main, Tensor):
        return torch.cat((main, aux))
    return type(main)(_joined(ours, theirs) for ours, theirs in zip(main, aux, strict=True))
