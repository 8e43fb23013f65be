"""Make the flags of a command from options, and read what was typed as a recipe is read.

tyro draws the help and takes the words apart. Each value reaches us as the text that was typed, so
that `entprop_fast.options.read` is the one reader of flags, recipes and rows of a comparison, and
an error is one line that names the flag.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, make_dataclass, replace
from typing import Annotated, Any, TypeVar

import tyro

from entprop_fast import name_errors
from entprop_fast.lab.cli.called import remember_flags, words_of
from entprop_fast.lab.cli.word_checks import check_once, check_values
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.config import SETTINGS
from entprop_fast.lab.training.errors import UsageError
from entprop_fast.lab.training.method_settings import methods_by_option
from entprop_fast.methods import METHODS
from entprop_fast.options import Bounds, Option, options_of, read

POSITIONAL = "positional arguments"  # the group of what is typed without a flag
GROUPS = (
    *(POSITIONAL, "", "comparison", "study", "corruption", "data", "network", "method", "training"),
    *("evaluation", "machine", "output"),
)

_IN = "group_"
_METAVARS = {int: "INT", float: "NUMBER", str: "STR"}
_ACCUMULATE = "accumulate"  # EntProp's own option; before a number, the run's accumulate_batches
_BATCHES = "a whole number N: batches in an optimiser step"
_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Flag:
    """Describe one flag: its option, and in words what holds where it is not given."""

    about: Option
    default: str = ""

    @property
    def typed(self) -> str:
        """The name as it is typed: ``--batch-size``, or ``CHECKPOINT`` without a flag."""
        name = self.about.name
        if self.about.group == POSITIONAL:
            return name.removesuffix("s").upper() if self.about.many else name.upper()
        return f"--{name.replace('_', '-')}"

    @property
    def needed(self) -> bool:
        """Whether the command cannot do without it."""
        return self.about.default is MISSING and not self.about.optional

    @property
    def form(self) -> str:
        """How it is typed with its values: ``IMAGE [IMAGE ...]``, ``--out STR``."""
        positional = self.about.group == POSITIONAL
        value = self.typed if positional else _metavar(replace(self.about, many=False))
        values = f"{value} [{value} ...]" if self.about.many else value
        return values if positional else f"{self.typed} {values}"


def own_flags(record: type, *names: str) -> list[Flag]:
    """Return the flags of a dataclass of options, all of them where none is named."""
    return [
        Flag(one, _default(one, one.default))
        for name, one in options_of(record).items()
        if name in names or not names
    ]


def run_flags(*names: str, without: Collection[str] = ()) -> list[Flag]:
    """Return the flags of a run's settings, which a recipe gives where they are left out.

    Args:
        names: of the settings, none for all.
        without: names of settings that have no flag.
    """
    digits = recipe.resolve(recipe.DEFAULT_RECIPE)
    found = []
    for name, one in SETTINGS.items():
        value = getattr(digits, name)
        shown = _default(one, value)
        if one.default is MISSING or value != one.default:
            shown = f"{recipe.DEFAULT_RECIPE} recipe: {_shown(one, value)}"
        if (name in names or not names) and name not in without:
            found.append(Flag(replace(one, optional=True), shown))
    return found


def method_flags() -> list[Flag]:
    """Return the flags of the methods' options, each once, with the methods that have it."""
    digits = recipe.read_recipe(recipe.DEFAULT_RECIPE)["method"]
    found = []
    for name, by_method in methods_by_option().items():
        one, *others = by_method.values()
        if any(other.bounds != one.bounds for other in others):  # the chosen method's are checked
            one = replace(one, bounds=Bounds())
        choices = tuple(dict.fromkeys(c for each in by_method.values() for c in each.choices))
        methods: dict[str, list[str]] = {}
        for method, each in by_method.items():
            methods.setdefault(_shown(each, each.default), []).append(method)
        shown = "; ".join(
            f"{'every method' if len(names) == len(METHODS) else ', '.join(names)}: {value}"
            for value, names in methods.items()
        )
        of_recipe = {
            _shown(each, digits[method][name])
            for method, each in by_method.items()
            if digits.get(method, {}).get(name, each.default) != each.default
        }
        if of_recipe:
            shown += f"; {recipe.DEFAULT_RECIPE} recipe: {', '.join(sorted(of_recipe))}"
        if name == _ACCUMULATE:
            one = replace(one, help=f"{one.help} Or {_BATCHES}, as --accumulate-batches N.")
        about = replace(one, name=name, optional=True, group="method", choices=choices)
        found.append(Flag(about, shown))
    return found


def parse(
    record: type[_Record],
    args: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    more: Iterable[Flag] = (),
    without: Collection[str] = (),
) -> tuple[_Record, dict[str, Any]]:
    """Read the flags given in `args`; ``--help`` prints and exits with 0.

    Args:
        record: the dataclass of the command's own flags.
        args: the words, None for the command line's.
        prog: the command's module, words after it; help and errors name it as it was called.
        description: a sentence or two for the help.
        more: flags of settings.
        without: names of flags that are not to be read.

    Returns:
        The record, and by name what was given of `more`.

    Raises:
        UsageError: an unknown flag, with the nearest ones, or a value that is not valid.
    """
    module, *rest = prog.split()
    called = shlex.join([*words_of(module), *rest])
    flags = [one for one in (*own_flags(record), *more) if one.about.name not in without]
    before = list(sys.argv[1:] if args is None else args)
    words = list(_aliased(before))
    for word in words:
        if reason := recipe.unfit(word):
            raise UsageError(f"the argument {word!r} {reason}")
    own = [one for one in flags if one.about.group != POSITIONAL and one.about.type is not bool]
    check_values(words, {one.typed: _metavar(one.about) for one in own})
    check_once(words, [one.typed for one in own if one.about.many])
    typed, unread = _typed(words, flags, prog=called, description=description)
    if unread:
        known = [one.typed for one in flags if one.about.group != POSITIONAL]
        raise UsageError(str(name_errors.unknown("argument", unread[0], known)))
    named = {
        flag.about.name: _as_typed(flag, before)
        for flag in flags
        if flag.about.group != POSITIONAL
        and (typed[flag.about.name] not in (None, False) or f"--no{flag.typed[1:]}" in before)
    }
    remember_flags(named)
    given = {}
    for flag in flags:
        name, value = flag.about.name, typed[flag.about.name]
        if not value and flag.needed:
            forms = [f.form for f in flags if f.needed or f.about.group == POSITIONAL]
            usage = " ".join([called, *forms])
            raise UsageError(f"{flag.typed} is missing: {usage}. {flag.about.help}")
        if value or (value is not None and flag.about.group != POSITIONAL):
            given[name] = _read(flag.about, named.get(name, flag.typed), value)
    names = {one.about.name for one in own_flags(record)}
    made = record(**{name: given.pop(name) for name in names & given.keys()})
    return made, given


def _aliased(words: Sequence[str]) -> Iterator[str]:
    """Read ``--accumulate`` before a number as the run's setting; before a word it is EntProp's."""
    for word, after in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        number = value if equals else after
        if name == "--accumulate" and number.isdecimal():
            yield f"--accumulate-batches{equals}{value}"
        else:
            yield word


def _as_typed(flag: Flag, words: Sequence[str]) -> str:
    """Return a flag as it stands on the command line, where one has two names."""
    if (off := f"--no{flag.typed[1:]}") in words:
        return off
    if flag.about.name == "accumulate_batches":
        long = any(word.replace("_", "-").startswith(flag.typed) for word in words)
        return flag.typed if long else "--accumulate"
    return flag.typed


def _read(about: Option, typed: str, value: Any) -> Any:
    try:
        return read(replace(about, name=typed, optional=False), value, words=True)
    except (TypeError, ValueError) as error:
        more = f", or {_BATCHES}" if about.name == _ACCUMULATE else ""
        raise UsageError(f"{error}{more}") from None


def _typed(
    words: Sequence[str], flags: Iterable[Flag], *, prog: str, description: str
) -> tuple[dict[str, Any], list[str]]:
    """Have tyro take the words apart: the text after each flag by name, and what is no flag."""
    groups: dict[str, list[Any]] = {name: [] for name in GROUPS}
    for flag in flags:
        groups.setdefault(flag.about.group, []).append(_argument(flag))
    entries = [*groups.pop(POSITIONAL), *groups.pop("")]
    for name, arguments in groups.items():
        if arguments:
            group: Any = make_dataclass(name, arguments)
            titled = Annotated[group, tyro.conf.arg(name=name)]
            entries.append((f"{_IN}{name}", titled, field(default_factory=group)))
    made: Any = make_dataclass("Flags", entries)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            found, unread = tyro.cli(
                made,
                args=words,
                prog=prog,
                description=description,
                config=(tyro.conf.DisallowNone,),
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        # Nothing of ours: all values are text, and none has to be given.
        raise UsageError("the arguments cannot be read: --help lists the flags") from None
    typed: dict[str, Any] = {}
    for name, value in vars(found).items():
        typed |= vars(value) if name.startswith(_IN) else {name: value}
    return typed, unread


def _argument(flag: Flag) -> tuple[str, Any, Any]:
    """Write a field of the dataclass that tyro reads: all values are text, none has to be given."""
    about = flag.about
    valid = "" if about.bounds == Bounds() else str(about.bounds)
    default = "must be given" if flag.needed and about.group != POSITIONAL else flag.default
    hints = [one for one in (valid.removeprefix("of "), about.unit, default) if one]
    said: dict[str, Any] = {
        "help": about.help,
        "help_behavior_hint": f"({'; '.join(hints)})" if hints else "",
        "prefix_name": False,
    }
    if about.type is bool:
        if about.optional:  # --no-nesterov is not --nesterov left out
            return about.name, Annotated[bool | None, tyro.conf.arg(**said)], None
        marks = (tyro.conf.FlagCreatePairsOff, tyro.conf.arg(**said))
        return about.name, Annotated[bool, *marks], False
    kind = tuple[str, ...] if about.many else str
    if about.group == POSITIONAL:
        marks = (tyro.conf.Positional, tyro.conf.arg(metavar=flag.typed, **said))
        return about.name, Annotated[kind, *marks], kind()
    return about.name, Annotated[kind | None, tyro.conf.arg(metavar=_metavar(about), **said)], None


def _metavar(about: Option) -> str:
    choices = [*about.choices, *(["N"] if about.name == _ACCUMULATE else [])]
    one = f"{{{','.join(choices)}}}" if choices else _METAVARS[about.type]
    return f"{one} ..." if about.many else one


def _default(about: Option, value: Any) -> str:
    nothing = value is MISSING or value is None or value is False or value in ((), "")
    return "" if nothing else f"default: {_shown(about, value)}"


def _shown(about: Option, value: Any) -> str:
    """Write a value as it would be typed."""
    if about.many:
        return " ".join(_shown(replace(about, many=False), one) for one in value)
    if about.type is float and about.unit == "image units" and value is not None:
        return f"{value * 255:g}/255"
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
