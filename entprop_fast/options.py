"""Write an option once: a dataclass field with its default, bounds, unit and sentence.

Checks, recipes, flags, tables of the documentation and signatures read the field; a new option is
one more field::

    @dataclass(frozen=True, kw_only=True)
    class MyOptions:
        k: float = option(0.2, "Share of the batch that is selected.", low=0, open_low=True, high=1)
        score: Literal["entropy", "random"] = option("entropy", "What selects the rows.")

    options = create(MyOptions, {"k": 0.5})  # checked: ValueError and TypeError name the option
    k = read(options_of(MyOptions)["k"], "1/5")  # what somebody typed, or wrote into a file
"""

from __future__ import annotations

import inspect
import math
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from entprop_fast.name_errors import unknown

_KEY = "option"
_LIMITS = {int: "2**31", float: "1e38"}  # no count reaches it; about float32's range
_LARGEST = {int: 2**31, float: 1e38}
_Record = TypeVar("_Record")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Say which numbers are valid; an infinite end is always open.

    Written as it stands in a sentence: a number ``in (0, 1]``, ``of at least 1``.
    """

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
        above = f"{'above' if self.open_low else 'of at least'} {self.low:g}"
        below = f"{'below' if self.open_high else 'of at most'} {self.high:g}"
        if math.isinf(self.high):
            return above
        if math.isinf(self.low):
            return below
        ends = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"in {ends[0]}{self.low:g}, {self.high:g}{ends[1]}"


@dataclass(frozen=True, kw_only=True)
class Option:
    """Describe one option, as its field says it.

    Attributes:
        name: of the field.
        type: float, int, bool, str or a class, without the None of an optional one.
        optional: whether None is valid.
        many: whether it is a tuple of values of `type`.
        choices: the valid values where they are listed, in a `Literal` say; else empty.
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
    many: bool
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
        choices: valid values that a table lists; a `Literal` says them itself.
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
            about = {"name": one.name, "default": one.default} | one.metadata[_KEY]
            found[one.name] = Option(**about | _from_hint(hints[one.name]))
    return found


def create(record: type[_Record], given: Mapping[str, Any], *, owner: str = "") -> _Record:
    """Make an instance of the dataclass `record` from checked values.

    Raises:
        TypeError: an option that `record` does not have or that is not given, or a value of
            another type.
        ValueError: a value that is not valid. Every message names the option.
    """
    known = options_of(record)
    for name in given:
        if name not in known:
            where = f"{owner}: " if owner else ""
            raise TypeError(f"{where}{unknown('option', name, known)}")
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
    if about.many and isinstance(value, list | tuple):
        return tuple(check(replace(about, many=False), one) for one in value)
    number = about.type in (int, float)
    accepted: Any = (int, float) if about.type is float else about.type
    if about.many or not isinstance(value, accepted) or (number and isinstance(value, bool)):
        wrong = ValueError if about.choices else TypeError
        raise wrong(f"{about.name}={value!r}: expected {valid(about)}")
    if about.choices and value not in about.choices:
        raise unknown(about.name, value, map(str, about.choices))
    if not number:
        return value
    if abs(value) >= _LARGEST[about.type]:
        limit = _LIMITS[about.type]
        raise ValueError(f"{about.name}={value!r}: expected {valid(about)}, below {limit}")
    if not about.bounds.hold(value):
        raise ValueError(f"{about.name}={value!r}: expected {valid(about)}")
    return about.type(value)


def read(about: Option, given: Any, *, words: bool = False) -> Any:
    """Return what a file or a flag says, checked; a float may be text, ``"4/255"``.

    Args:
        about: the option.
        given: the value.
        words: it was typed, where integers, True and False are text, too.

    Raises:
        TypeError, ValueError: as `check`.
    """
    if about.many and isinstance(given, list | tuple):
        return tuple(read(replace(about, many=False), one, words=words) for one in given)
    if not isinstance(given, str) or about.type is str or not (words or about.type is float):
        return check(about, given)
    try:
        value = _READERS[about.type](given)
    except (KeyError, ValueError, ZeroDivisionError):
        raise ValueError(f"{about.name}={given!r}: expected {valid(about)}") from None
    return check(about, value)


def number(text: str) -> float:
    """Read a float, or a fraction of two: ``"4/255"``.

    Raises:
        ValueError: it is neither.
    """
    top, slash, bottom = text.partition("/")
    return float(top) / float(bottom) if slash else float(top)


def assignments(text: str, whole: str) -> dict[str, str]:
    """Read ``name=value,name=value``, a part of `whole`; a dash in a name is an underscore.

    Raises:
        ValueError: something else stands between two commas, or a name is given twice.
    """
    given: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        name = name.replace("-", "_")
        if not equals:
            raise ValueError(f"{whole!r}: {part!r} must be option=value")
        if name in given:
            raise ValueError(f"{whole!r} gives {name} twice")
        given[name] = value.strip()
    return given


_READERS: dict[type, Callable[[str], Any]] = {
    int: int,
    float: number,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
}


def valid(about: Option) -> str:
    """Say what is valid, for messages and tables: ``a number in (0, 1]``."""
    if about.choices:
        listed = (*about.choices, None) if about.optional else about.choices
        return f"one of {', '.join(map(repr, listed))}"
    words = {int: "an integer", float: "a number", bool: "True or False", str: "a string"}
    said = words.get(about.type, f"a {about.type.__name__}")
    if about.bounds != Bounds():
        said += f" {about.bounds}"
    if about.unit:
        said += f" ({about.unit})"
    if about.many:
        said = f"values, each {said}"
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
    lines: list[str] = []
    for one in options_of(record).values():
        limited = one.choices or one.bounds != Bounds()
        text = f"{one.name}: {one.help}" + (f" Expected: {valid(one)}." if limited else "")
        lines += textwrap.wrap(text, 96, initial_indent=" " * 4, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _from_hint(hint: Any) -> dict[str, Any]:
    """Read a field's type: what it holds, whether None or a tuple, the choices of a `Literal`."""
    found: dict[str, Any] = {"optional": False, "many": False}
    if get_origin(hint) in (Union, types.UnionType):
        parts = [one for one in get_args(hint) if one is not type(None)]
        found["optional"] = len(parts) < len(get_args(hint))
        hint = parts[0]
    if get_origin(hint) is Sequence or get_args(hint)[1:] == (Ellipsis,):
        found["many"], hint = True, get_args(hint)[0]
    if get_origin(hint) is Literal:
        found["choices"] = get_args(hint)
        hint = type(found["choices"][0])
    return found | {"type": get_origin(hint) or hint}
