"""Say which options of the methods a recipe or a flag can set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entprop_fast.lab.training import criteria
from entprop_fast.methods import METHODS, default_mixup
from entprop_fast.name_errors import unknown
from entprop_fast.options import Option, option, options_of, read

Value = str | int | float | bool

# What the run's own settings say, or what only a loop in Python needs.
_NOT_HERE = frozenset({"amp", "capture", "check"})


# Methods take a module, text names one.
@dataclass(frozen=True, kw_only=True)
class _ByName:
    criterion: str = option(
        criteria.DEFAULT,
        "Loss that is trained: cross-entropy, or another in its place.",
        choices=criteria.NAMES,
    )


def settable(method: str) -> dict[str, Option]:
    """Return the method's options that text can name: numbers, choices, switches, the criterion.

    Raises:
        ValueError: there is no such method.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    found = {}
    for name, one in options_of(METHODS[method].Options).items():
        one = options_of(_ByName).get(name, one)
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
            others = ", ".join(other for other in METHODS if name in settable(other))
            raise ValueError(
                f"method {method!r} has no option {name!r}"
                + (f", which {others} take" if others else "")
                + f"; it has {', '.join(sorted(known))}"
            )
    merged = {
        name: read(one, given[name]) if name in given else one.default
        for name, one in known.items()
    }
    if "mixup" in known:  # said as it holds, as runs say it that were begun before `jsd` was
        merged["mixup"] = default_mixup(merged["mixup"], merged.get("jsd", 0.0))
    return {name: value for name, value in merged.items() if value is not None}


def without_mixing(method: str, own: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the mixing of a recipe where a consistency of views is asked for in its place.

    A method that does both, as noisymix, keeps it.

    Args:
        method: whose options they are.
        own: the recipe's.
        named: those that go over them.

    Raises:
        TypeError, ValueError: a weight of the consistency that is not valid.
    """
    known = settable(method)
    weight = known.get("jsd")
    both = "mixup" in known and not known["mixup"].optional
    if weight is None or both or "jsd" not in named or not read(weight, named["jsd"], words=True):
        return dict(own)
    return {name: value for name, value in own.items() if name not in ("mixup", "cutmix")}
