"""Print a script that completes commands, flags and values: ``entprop completion bash``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

from entprop_fast import models
from entprop_fast.lab.cli.command_line import run_command
from entprop_fast.lab.cli.commands import COMMANDS, typed
from entprop_fast.lab.cli.completion_script import FILES, Flags, script
from entprop_fast.lab.cli.flags import POSITIONAL, Flag, own_flags, parse
from entprop_fast.lab.data.datasets import DATASETS, PREFIXES
from entprop_fast.lab.experiments.studies import STUDIES
from entprop_fast.lab.training import augment_setting, loggers, recipe
from entprop_fast.lab.training.errors import bad_input
from entprop_fast.methods import METHODS
from entprop_fast.models.weights import PRETRAINED, RANDOM
from entprop_fast.options import option

SHELLS = ("bash", "zsh")


@dataclass(frozen=True, kw_only=True)
class _Flags:
    shell: str = option(
        help=f"Shell that is to complete: one of {', '.join(SHELLS)}.",
        choices=SHELLS,
        group=POSITIONAL,
    )


_DESCRIPTION = (
    "Print a script for your shell, after which TAB completes the words of `entprop`: commands, "
    "flags, choices and files. docs/install.md says where to put it."
)

# Names that an option takes without saying so itself: there are more, as timm's networks.
_NAMES: dict[str, Callable[[], Sequence[str]]] = {
    "arch": lambda: _networks(),
    "archs": lambda: _networks(),
    "augment": lambda: augment_setting.NAMES,
    "baseline": lambda: list(METHODS),
    "dataset": lambda: [*(one for one in DATASETS if not one.startswith(PREFIXES)), *PREFIXES],
    "device": lambda: ["auto", "cpu", "cuda", "mps", "xpu"],
    "log": lambda: loggers.NAMES,
    "method": lambda: list(METHODS),
    "methods": lambda: list(METHODS),
    "recipe": lambda: [*recipe.recipe_names(), FILES],
    "to": lambda: importlib.import_module(f"{__package__}.export").FORMATS,
    "weights": lambda: [PRETRAINED, RANDOM, FILES],
}
_WIDE = ("wrn10_0.5", "wrn16_4", "wrn28_10", "wrn40_2")  # of the pattern wrn{depth}_{width}
# What is typed without a flag, by command and name.
_WORDS: dict[tuple[str, str], Callable[[], Sequence[str]]] = {
    ("data", "command"): lambda: importlib.import_module(f"{__package__}.data").COMMANDS,
    ("data", "target"): lambda: [*_NAMES["dataset"](), FILES],
    ("study", "name"): lambda: list(STUDIES),
}


def _more_flags() -> list[Flag]:
    return []


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    return run_command(lambda: _completion(args))


def _completion(args: Sequence[str] | None) -> None:
    with bad_input():
        flags, _ = parse(
            _Flags, args, prog="entprop_fast.completion", description=_DESCRIPTION, more=[]
        )
    sys.stdout.write(script(flags.shell, {typed(name): flags_of(name) for name in COMMANDS}))


def flags_of(name: str) -> Flags:
    """Return what may be typed after a command: its flags, and the words without one."""
    command = importlib.import_module(f"{__package__}.{name}")
    found: dict[str, Sequence[str] | None] = {"--help": None}
    positional: list[str] = []
    for flag in _all_flags(command):
        if flag.about.group == POSITIONAL:
            positional += _words(name, flag)
        else:
            found.update(_typed_forms(flag))
    many = {f.typed for f in _all_flags(command) if f.about.many and f.about.group != POSITIONAL}
    return Flags(found, many, positional)


def _all_flags(command: ModuleType) -> list[Flag]:
    """Return a command's flags, which each file here declares in one way; env_report has none."""
    own = own_flags(command._Flags) if hasattr(command, "_Flags") else []
    return [*own, *getattr(command, "_more_flags", list)()]


def _typed_forms(flag: Flag) -> Iterator[tuple[str, list[str] | None]]:
    """Yield each form of a flag with what may follow it, None where nothing does."""
    if flag.about.type is bool:
        yield flag.typed, None
        if flag.about.optional:
            yield f"--no-{flag.typed.removeprefix('--')}", None
        return
    yield flag.typed, _values(flag)


def _values(flag: Flag) -> list[str]:
    if flag.about.choices:
        return [str(one) for one in flag.about.choices]
    if flag.about.name in _NAMES:
        return list(_NAMES[flag.about.name]())
    return [FILES] if flag.about.type is str else []


def _networks() -> list[str]:
    """Return networks of ours by name, some of the wide ones, and how other libraries' begin."""
    found = list(_WIDE)
    for name in models.available():
        if "{" not in name:
            found.append(name.removesuffix("NAME"))
    return found


def _words(command: str, flag: Flag) -> list[str]:
    known = _WORDS.get((command, flag.about.name))
    return _values(flag) if known is None else list(known())
