"""Derive dual classes, and classes of halves, for norms of other people's."""

import functools
import types
from collections.abc import Callable
from typing import Any

from torch import nn

from entprop_fast.layers.copied_norms import DualCopy
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.layer_norms import DualLayerNorm

_RESETS = ("reset_parameters", "reset_running_stats")


def dual_class(mixin: Any, plain: Any, aux_name: str | None = None) -> Any:
    """Return the dual class of `plain`: "Dual" and its name.

    Args:
        mixin: a dual class of a base of `plain` whose forward it has, or `DualCopy`.
        plain: any norm class.
        aux_name: of the half; None for that of `mixin`.
    """
    return _dual_class(mixin, plain, aux_name or mixin.aux_name)


@functools.cache  # by what pickles name, too: one class for each norm
def _dual_class(mixin: Any, plain: Any, aux_name: str) -> Any:
    members: dict[str, Any] = {"plain_class": plain, "aux_name": aux_name}
    if mixin is DualCopy:
        members |= {"norm_class": plain, "half_class": plain}
        members |= {name: _reset(name, plain) for name in _RESETS if hasattr(plain, name)}
        layer_norm = (DualLayerNorm,) if issubclass(plain, nn.LayerNorm) else ()
        bases = (DualCopy, *layer_norm, plain)
    else:
        bases = (mixin, plain)
        members["half_class"] = _half_class(mixin, plain)
    return derive(f"Dual{plain.__name__}", bases, members, _dual_class, (mixin, plain, aux_name))


@functools.cache
def _aux_class(mixin: Any, plain: Any) -> Any:
    return derive(f"Aux{plain.__name__}", (mixin, plain), {}, _aux_class, (mixin, plain))


def _half_class(mixin: Any, plain: Any) -> Any:
    """Return the class of the half: of `plain`, too, but where that adds an activation."""
    if mixin.norm_class is not mixin.plain_class:
        return mixin.half_class
    return plain if mixin.half_class is mixin.plain_class else _aux_class(mixin.half_class, plain)


def derive(
    name: str,
    bases: tuple[Any, ...],
    members: dict[str, Any],
    make: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> Any:
    """Return a new class whose modules pickle, and whose `recipe` is `make` and `arguments`.

    Args:
        name: of the class.
        bases: the last of them is somebody's class, whose module the new one names.
        members: of its body.
        make: returns it, given `arguments`; a function of a module.
        arguments: what a pickle holds in place of the class.
    """
    plain = bases[-1]

    def reduce(self: Any, protocol: Any) -> Any:
        """Pickle by what the class is made from: pickle finds no class of this name."""
        return _new, (make, arguments), self.__getstate__()

    def body(namespace: dict[str, Any]) -> None:
        namespace.update(
            members,
            recipe=(make, arguments),
            __doc__=f"Extend `{plain.__name__}`.",
            __module__=plain.__module__,
            __qualname__=name,
            __reduce_ex__=reduce,
        )

    return types.new_class(name, bases, exec_body=body)


def _new(make: Any, arguments: tuple[Any, ...]) -> nn.Module:
    cls = make(*arguments)
    module: nn.Module = cls.__new__(cls)
    return module


def _reset(name: str, plain: Any) -> Any:
    """Return a method that resets both halves, inside a route the routed ones alone."""

    def reset(self: DualNorm) -> None:
        if not (self.inside and self.num_main == 0):
            getattr(plain, name)(self)
        if not (self.inside and self.num_main is None):
            getattr(self.aux, name)()

    reset.__doc__ = "Reset both halves, inside a route the routed ones alone."
    return reset
