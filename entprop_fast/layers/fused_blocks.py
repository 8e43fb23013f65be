"""Give a block a forward made from its graph, and its own one back wherever that does not hold."""

from __future__ import annotations

import contextlib
import copy
import copyreg
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.fx import Graph

from entprop_fast.layers.fusion_sites import find_sites, rewrite
from entprop_fast.layers.fusion_state import Attributes
from entprop_fast.ops.backend import exporting

KEY = "_fused_forwards"  # in a fused block's attributes
Mode = tuple[bool, int]  # training, number of arguments


class Forwards:
    """Hold the forwards of a block, by mode and number of arguments."""

    def __init__(self) -> None:
        self.of_mode: dict[Mode, tuple[Callable[..., Any], Attributes]] = {}
        self.patterns: dict[str, str] = {}  # by the path of the norm from the block
        self.why: dict[str, str] = {}  # of the norms that are not fused in all of them

    def add(self, mode: Mode, graph: Graph, block: nn.Module, attributes: Attributes) -> None:
        """Fuse what can be in a graph of `block`, and keep its forward."""
        sites, why = find_sites(graph, block)
        for site in sites:
            rewrite(site, block)
        found = {str(s.norm.target): "add+relu" if s.add else "relu" for s in sites}
        for path in why:
            self.patterns.pop(path, None)
        self.patterns.update({k: v for k, v in found.items() if k not in self.why})
        self.why.update(why)
        self.of_mode[mode] = (_compile(graph), attributes)

    def find(self, block: nn.Module, args: tuple[Any, ...]) -> Callable[..., Any] | None:
        """Return the forward for such a call; None where a graph would not be exact."""
        known = self.of_mode.get((block.training, len(args)))
        if known is None or not all(isinstance(x, Tensor) for x in args):
            return None
        forward, attributes = known
        return forward if attributes.hold() else None


def _compile(graph: Graph) -> Callable[..., Any]:
    """Make a function of the block and its arguments: it finds modules where the block has them."""
    code = graph.python_code("self")
    names = dict(code.globals)
    exec(compile(code.src, "<fused by entprop_fast>", "exec"), names)
    forward: Callable[..., Any] = names["forward"]
    return forward


class Fused(nn.Module):
    """Go in front of the class of a block."""

    fused_from: ClassVar[type[nn.Module]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph where it holds, otherwise the block's own forward."""
        if not (kwargs or torch.compiler.is_compiling() or exporting()):
            forwards: Forwards = self.__dict__[KEY]
            if (forward := forwards.find(self, args)) is not None:
                return forward(self, *args)
        return type(self).fused_from.forward(self, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        with _as_plain(self) as cls:
            twin = copy.deepcopy(self, memo)
        twin.__class__ = cls
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Leave out the graphs, which no pickle holds: what is loaded is not fused."""
        with _as_plain(self):
            make, arguments, *rest = self.__reduce_ex__(protocol)
        if rest and isinstance(rest[0], dict):
            rest[0] = {name: value for name, value in rest[0].items() if name != KEY}
        # The only callable of which pickle demands that the class still be the block's own.
        return (_new if make is copyreg.__newobj__ else make, arguments, *rest)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _as_plain(block: Fused) -> Iterator[type[Any]]:
    cls = type(block)
    block.__class__ = cls.fused_from  # type: ignore[assignment]
    try:
        yield cls
    finally:
        block.__class__ = cls


def _new(cls: type[nn.Module]) -> nn.Module:
    return cls.__new__(cls)


@functools.cache
def fused_class(cls: Any) -> Any:
    """Return a subclass of `cls` that looks like it and whose forward is the fused one."""

    def body(namespace: dict[str, Any]) -> None:
        @functools.wraps(cls.forward)
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            return Fused.forward(self, *args, **kwargs)

        namespace.update(fused_from=cls, forward=forward)
        namespace.update({name: getattr(cls, name) for name in ("__module__", "__qualname__")})
        namespace["__doc__"] = cls.__doc__

    return types.new_class(cls.__name__, (Fused, cls), exec_body=body)
