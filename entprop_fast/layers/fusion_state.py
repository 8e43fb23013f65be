"""Remember what a traced forward may have read of its modules: its graph holds for that."""

from __future__ import annotations

import inspect
import operator
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.fusion_code import SIMPLE, is_recorded
from entprop_fast.layers.torch_quirks import has_hooks
from entprop_fast.torch_internals import buffers_of, call_hooks_of, children_of, parameters_of

# What every module has beside its own attributes; `training` belongs to the mode.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
# Of a class: a trace looks into what they do.
_METHODS: tuple[type[Any], ...] = (types.FunctionType, staticmethod, classmethod, property)
_METHODS += (types.WrapperDescriptorType, types.MethodDescriptorType)


class _Missing:
    """Stand for an attribute that is not there; itself also in a deep copy."""


class Attributes:
    """Remember what a traced forward may have read: its graph holds as long as that is the same.

    By reference: a deep copy of this, made with that of the modules, tells about the copies.
    """

    def __init__(
        self,
        block: nn.Module,
        inlined: Sequence[nn.Module],
        others: Sequence[nn.Module],
        names: Iterable[str],
        asked: Iterable[str],
        ignored: str,
    ) -> None:
        self._ignored = ignored
        self._inlined = list(inlined)
        self._modes = [(module, module.training) for module in (block, *inlined)]
        below = list(modules_of(block))
        self._children = [
            (m, dict(children_of(m))) for m in below if m is block or not isinstance(m, DualNorm)
        ]
        self._seen = [(module, self._own(module)) for module in (block, *inlined, *others)]
        asked = set(asked)
        self._read = [
            (module, name, value)
            for module in below
            for name in sorted(asked.union(names))
            for value in [read(module, name)]
            if value is not _Missing or name in asked
        ]

    def unknown(self) -> str | None:
        """Name an attribute that may change in place, None where there is none."""
        for module, name, value in self._read:
            if not is_immutable(value):
                return f"{name} of a {type(module).__name__}"
        return None

    def hold(self) -> bool:
        """Return whether all are as they were, and nothing watches the calls that do not happen."""
        return (
            all(module.training is training for module, training in self._modes)
            and all(_same(children_of(m), was, operator.is_) for m, was in self._children)
            and all(_same(self._own(module), own, _equal) for module, own in self._seen)
            and all(_equal(read(module, name), value) for module, name, value in self._read)
            and not (self._inlined and any(map(has_hooks, self._inlined)))
            and not any(call_hooks_of(None))
        )

    def _own(self, module: nn.Module) -> dict[str, Any]:
        return {
            name: value
            for name, value in vars(module).items()
            if name not in _OF_EVERY_MODULE and name != self._ignored
        }


def modules_of(block: nn.Module) -> Iterator[nn.Module]:
    """Yield `block` and the modules below it, the halves of dual norms left out."""
    found: dict[nn.Module, None] = {}
    waiting = [block]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found[module] = None
        if not isinstance(module, DualNorm):
            waiting += [child for child in children_of(module).values() if child is not None]
    yield from found


def read(module: nn.Module, name: str) -> Any:
    """Return what an attribute tells a forward; of a tensor that is in the graph, its class."""
    if name in vars(module):
        return vars(module)[name]
    for registry in (parameters_of, buffers_of):
        if name in registry(module):
            return registry(module)[name] is None
    if name in children_of(module):
        return _Missing  # they are compared
    value = inspect.getattr_static(type(module), name, _Missing)
    return _Missing if isinstance(value, _METHODS) else value


def is_immutable(value: object) -> bool:
    """Return whether what a value tells can change only with the value itself."""
    if type(value) is tuple:
        return all(map(is_immutable, value))
    return value is _Missing or isinstance(value, SIMPLE) or is_recorded(value)


def _same(now: dict[str, Any], was: dict[str, Any], alike: Callable[[Any, Any], bool]) -> bool:
    return len(now) == len(was) and all(
        name in now and alike(now[name], value) for name, value in was.items()
    )


def _equal(one: object, other: object) -> bool:
    return one is other or (
        type(one) is type(other) and isinstance(one, (*SIMPLE, tuple)) and _written(one, other)
    )


def _written(one: object, other: object) -> bool:
    """Compare two values of the same class, also those inside of tuples."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other
