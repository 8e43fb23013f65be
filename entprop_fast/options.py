"""Write an option once: a dataclass field with its default, bounds, unit and sentence.

Checks, recipes, flags, tables of the documentation and signatures read the field; a new option is
one more field::

    @dataclass(frozen=True, kw_only=True)
    class MyOptions:
        k: float = option(0.2, "Share of the batch that is selected.", low=0, open_low=True, high=1)
        score: Literal["entropy", "random"] = option("entropy", "What selects the rows.")

    options = create(MyOptions, {"k": 0.5})  # checked: ValueError and TypeError name the option
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from entprop_fast import name_errors

_KEY = "option"
_Record = TypeVar("_Record")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Say which numbers are valid; an infinite end is always open."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def hold(self, value: float) -> bool:
        """Return whether `value` is inside; NaN and infinity never are."""
        above = self.low < value if self.open_low else self.low <= value
        below = value < self.high if self.open_high else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        opens = "(" if self.open_low or math.isinf(self.low) else "["
        closes = ")" if self.open_high or math.isinf(self.high) else "]"
        return f"{opens}{self.low:g}, {self.high:g}{closes}"


@dataclass(frozen=True, kw_only=True)
class Option:
    """Describe one option, as its field says it.

    Attributes:
        name: of the field.
        type: float, int, bool, str or a class, without the None of an optional one.
        optional: whether None is valid.
        choices: the valid values where the field is a `Literal` or names its own, else empty.
        default: `dataclasses.MISSING` where it has to be given.
        help: a sentence.
        unit: "image units", say; empty for a plain number.
        group: heading under which it is listed.
        bounds: of a number.
        parse: checks and converts the value in place of type, choices and bounds, or None.
    """

    name: str
    type: type
    optional: bool
    choices: tuple[Any, ...]
    default: Any
    help: str
    unit: str
    group: str
    bounds: Bounds
    parse: Callable[[Any], Any] | None


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
    unit: str = "",
    group: str = "",
    choices: Iterable[Any] = (),
    parse: Callable[[Any], Any] | None = None,
) -> Any:
    """Declare a field of a dataclass of options; see the example above.

    Args:
        default: left out: the option has to be given.
        help: a whole sentence.
        low: lowest valid number.
        high: highest valid number.
        open_low: leave out `low` itself.
        open_high: leave out `high` itself.
        unit: of the number.
        group: heading in ``--help`` and in the tables of the documentation.
        choices: the valid values, where a table gives them and no `Literal` can.
        parse: checks a value and returns it as it is kept, for what is no number or choice.
    """
    bounds = Bounds(low=low, high=high, open_low=open_low, open_high=open_high)
    about = {"help": help, "bounds": bounds, "unit": unit, "group": group, "parse": parse}
    about["choices"] = tuple(choices)
    return field(default=default, metadata={_KEY: about})


def options_of(record: type) -> dict[str, Option]:
    """Read the options of a dataclass, in their order; fields without `option` are none."""
    return _options_of(record)


@cache
def _options_of(record: Any) -> dict[str, Option]:
    hints = get_type_hints(record)
    found = {}
    for one in fields(record):
        if _KEY in one.metadata:
            about = dict(one.metadata[_KEY])
            kind, optional, choices = _read(hints[one.name])
            about["choices"] = about["choices"] or choices
            found[one.name] = Option(
                name=one.name, type=kind, optional=optional, default=one.default, **about
            )
    return found


def create(record: type[_Record], given: Mapping[str, Any], *, owner: str = "") -> _Record:
    """Make an instance of the dataclass `record` from checked values.

    Raises:
        TypeError: an option that `record` does not have, or a value of another type.
        ValueError: a value that is not valid. Every message names the option.
    """
    known = options_of(record)
    for name in given:
        if name not in known:
            where = f"{owner}: " if owner else ""
            raise TypeError(f"{where}{name_errors.unknown('option', name, known)}")
    return record(**{name: check(known[name], value) for name, value in given.items()})


def check(about: Option, value: Any) -> Any:
    """Return `value` as the option's type, an int as a float where one is declared.

    Raises:
        TypeError: it is of another type.
        ValueError: it is out of bounds or none of the choices.
    """
    if about.parse is not None:
        return about.parse(value)
    if value is None and about.optional:
        return None
    if about.choices:
        if not any(
            value is one or (type(value) is type(one) and value == one) for one in about.choices
        ):
            raise ValueError(f"{about.name}={value!r}: expected {valid(about)}")
        return value
    number = about.type in (int, float)
    accepted: Any = (int, float) if about.type is float else about.type
    if not isinstance(value, accepted) or (number and isinstance(value, bool)):
        raise TypeError(f"{about.name}={value!r}: expected {valid(about)}")
    if number and not about.bounds.hold(value):
        raise ValueError(f"{about.name}={value!r}: expected {valid(about)}")
    return about.type(value) if number else value


def valid(about: Option) -> str:
    """Say what is valid, for messages and tables: ``a number in (0, 1]``."""
    if about.choices:
        listed = (*about.choices, None) if about.optional else about.choices
        return f"one of {', '.join(map(repr, listed))}"
    words = {int: "an integer", float: "a number", bool: "True or False", str: "a string"}
    said = words.get(about.type, f"a {about.type.__name__}")
    if about.bounds != Bounds():
        said += f" in {about.bounds}"
    if about.unit:
        said += f" ({about.unit})"
    return f"{said}, or None" if about.optional else said


def signature(record: type, *leading: inspect.Parameter) -> inspect.Signature:
    """Return the signature of a call that takes the options of `record` as keywords."""
    hints = get_type_hints(record)
    keywords = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if one.default is MISSING else one.default,
            annotation=hints[one.name],
        )
        for one in options_of(record).values()
    ]
    return inspect.Signature([*leading, *keywords])


def document(record: type) -> str:
    """Return the "Args" lines of a docstring: a name and its sentence each."""
    return "\n".join(f"    {one.name}: {one.help}" for one in options_of(record).values())


def _read(hint: Any) -> tuple[type, bool, tuple[Any, ...]]:
    """Split a type hint into its type, whether None is valid, and the choices of a `Literal`."""
    optional = False
    if get_origin(hint) in (Union, types.UnionType):
        parts = [one for one in get_args(hint) if one is not type(None)]
        optional = len(parts) < len(get_args(hint))
        hint = parts[0]
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return type(choices[0]), optional, choices
    return get_origin(hint) or hint, optional, ()
