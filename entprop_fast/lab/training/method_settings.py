"""Say which options of the methods a recipe or a flag can set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from entprop_fast.lab.training import criteria
from entprop_fast.methods import METHODS
from entprop_fast.name_errors import unknown
from entprop_fast.options import Option, options_of, read

Value = str | int | float | bool

# What the run's own settings say, or what only a loop in Python needs.
_NOT_HERE = frozenset({"amp", "capture", "check"})


def settable(method: str) -> dict[str, Option]:
    """Return the method's options that text can name: numbers, choices, switches, the criterion.

    Raises:
        ValueError: there is no such method.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    found = {}
    for name, one in _options(method).items():
        if name == "criterion":
            one = replace(
                one, type=str, optional=False, default=criteria.DEFAULT, choices=criteria.NAMES
            )
        if one.type in (str, int, float, bool) and not one.many and name not in _NOT_HERE:
            found[name] = one
    return found


def methods_by_option() -> dict[str, dict[str, Option]]:
    """Return each option that a method has, with what it is in each method that has it."""
    found: dict[str, dict[str, Option]] = {}
    for method in METHODS:
        for name, one in settable(method).items():
            found.setdefault(name, {})[method] = one
    return found


def complete(method: str, given: Mapping[str, Any]) -> dict[str, Value]:
    """Return all options of a method that can be set: those given, the defaults of the rest.

    Raises:
        TypeError, ValueError: the method does not have one, or a value is not valid.
    """
    known = settable(method)
    for name in given:
        if name not in known:
            raise ValueError(
                f"method {method!r} has no option {name!r}; it has {', '.join(sorted(known))}"
            )
    merged = {
        name: read(one, given[name]) if name in given else one.default
        for name, one in known.items()
    }
    return {name: value for name, value in merged.items() if value is not None}


def _options(method: str) -> dict[str, Option]:
    cls = METHODS[method]
    if hasattr(cls, "Options"):
        return options_of(cls.Options)
    # until the methods have their Options
    import dataclasses
    import typing

    from entprop_fast.methods import method_options
    from entprop_fast.methods.base import Method
    from entprop_fast.options import option

    hints: dict[str, Any] = {}
    for one in (Method, cls):
        for base in reversed(one.__mro__):
            if "__init__" in vars(base):
                hints |= typing.get_type_hints(base.__init__)
    made = [(n, hints[n], option(d)) for n, d in method_options(method).items()]
    return options_of(dataclasses.make_dataclass("Options", made, kw_only=True))
