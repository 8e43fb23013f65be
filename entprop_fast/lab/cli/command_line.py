"""What the commands share: flags made from a dataclass, errors in one line, exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, make_dataclass
from itertools import takewhile
from typing import Annotated, Any

# First: it says in one line which of the commands' libraries are missing.
from entprop_fast.lab import training as _training  # noqa: F401

# isort: split
import tyro

from entprop_fast import name_errors
from entprop_fast.lab.cli.output import lasting, missed
from entprop_fast.lab.stopping import StopSignals
from entprop_fast.lab.training.config import number, unfit, value_types
from entprop_fast.lab.training.errors import (
    RunFailed,
    Stopped,
    UsageError,
    machine_failed,
    one_line,
)

Flag = tuple[str, Any] | tuple[str, Any, Any]  # name, annotation, default

EXIT_FAILED = 1
EXIT_USAGE = 2

_TOO_MUCH = 2**32
_NAME_INDENT = 5  # in tyro's boxes


def run_command(
    command: Callable[[StopSignals], None], *, again: Callable[[bool], str] | None = None
) -> int:
    """Run a command and return its exit code.

    0; 2 after bad usage or bad input; 128 + the signal's number after one of
    `entprop_fast.lab.stopping.SIGNALS`: 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP,
    138 after SIGUSR1 on Linux; 1 otherwise. A user's error or a failed run is one line on stderr; a
    fault of ours keeps its traceback.

    Args:
        command: is given the signals.
        again: the command line that goes on after a stop, given whether anything was saved.
    """
    with lasting() as output:
        code = _exit_code(command, again)
        output.flush()
        if code == 0 and (error := missed(output.error)):
            print(f"failed: stdout cannot be written: {one_line(error)}", file=sys.stderr)
            return EXIT_FAILED
    return code


def _exit_code(command: Callable[[StopSignals], None], again: Callable[[bool], str] | None) -> int:
    try:
        with StopSignals().installed() as signals, _warnings_in_one_line():
            _check_single_process()
            command(signals)
            if signals.pending is not None:  # a loop of the shell's is to end as well
                print(f"stopped by {Stopped(signals.pending)}: all was done", file=sys.stderr)
                return 128 + signals.pending
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    except (OSError, RuntimeError, MemoryError) as error:  # the machine's, not ours or the user's
        if (reason := machine_failed(error)) is None:
            raise
        print(f"failed: {reason}", file=sys.stderr)
        return EXIT_FAILED
    except Stopped as stopped:
        text = f"stopped by {stopped}: {stopped.saved or 'nothing was begun that could be kept'}"
        if again is not None:
            text += f"; {again(stopped.saved is not None)}"
        print(text, file=sys.stderr)
        return 128 + stopped.signum
    return 0


def command_again(prog: str, args: Sequence[str] | None, *more: str) -> Callable[[bool], str]:
    """For `run_command`: the words that name the command line to type after a stop.

    Args:
        prog: the module.
        args: of this time, None for the command line's.
        more: flags that go on where something was saved; what was given with --overwrite was
            replaced by then.
    """
    given = list(sys.argv[1:] if args is None else args)

    def words(saved: bool) -> str:
        if not saved:
            return f"again: {shlex.join(['python', '-m', prog, *given])}"
        kept = [one for one in given if one != "--overwrite" and one not in more]
        return f"to go on: {shlex.join(['python', '-m', prog, *kept, *more])}"

    return words


def _check_single_process() -> None:
    """This process is not one of several that torchrun started with the same arguments.

    Raises:
        UsageError: it is one; all of them would write to the same folder.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size.isdecimal() and int(size) > 1:
        raise UsageError(
            f"WORLD_SIZE={size}: this command is one process, and torchrun starts {size}, which "
            "would all do the same work in the same folder; start it without torchrun (compare "
            "trains as many runs at a time as there are GPUs), or, to train one network on "
            "several GPUs, write the few lines of docs/distributed.md: create_method takes a "
            "DistributedDataParallel"
        )


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Without the place in the source: who types a command did not write it."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def optional_flags(record: type, *only: str) -> list[Flag]:
    """A flag for each described field of a dataclass; None means that it was not given.

    Args:
        record: the dataclass.
        only: the fields to take, all of them where none is named.
    """
    types = value_types(record)
    return [
        optional_flag(one.name, types[one.name], one.metadata["help"])
        for one in fields(record)
        if "help" in one.metadata and (one.name in only or not only)
    ]


def optional_flag(name: str, value_type: type, help_text: str) -> Flag:
    """A flag that is None when it is not given; a float may be a fraction, ``4/255``."""
    settings: list[Any] = [tyro.conf.arg(help=help_text, help_behavior_hint="")]
    if value_type is float:
        settings.append(_NUMBER)
    return name, Annotated[value_type | None, *settings], None


def recipe_flag() -> Flag:
    """``--recipe``, as every command that trains has it."""
    return optional_flag(
        "recipe",
        str,
        "a recipe, or a path to a .toml; when left out the data set's own, folder for images of "
        "your own, finetune for those with --weights, digits without --dataset",
    )


def several(name: str, value_type: type, help_text: str) -> Flag:
    """A flag with one value or more, None when it is not given."""
    settings = tyro.conf.arg(help=help_text, help_behavior_hint="")
    return name, Annotated[tuple[value_type, ...] | None, settings], None  # type: ignore[valid-type]


def switch(name: str, help_text: str) -> Flag:
    """A flag without a value, off unless given."""
    marks = (tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help=help_text, help_behavior_hint=""))
    return name, Annotated[bool, *marks], False


def positional(name: str, help_text: str) -> Flag:
    """A string that must be given, without a flag; put it first."""
    marks = (tyro.conf.Positional, tyro.conf.arg(help=help_text, metavar=name.upper()))
    return name, Annotated[str, *marks]


def optional_positional(name: str, help_text: str) -> Flag:
    """A string without a flag that may be left out, empty then; after those that must be given."""
    return (*positional(name, help_text), "")


def positionals(name: str, help_text: str) -> Flag:
    """One string or more without a flag, none of them optional; put it first."""
    marks = (tyro.conf.Positional, tyro.conf.arg(name=name, help=help_text, metavar=name.upper()))
    return f"{name}s", Annotated[tuple[str, ...], *marks]


def flag_class(name: str, *flags: Flag) -> type[Any]:
    """A dataclass of those flags, for `parse`."""
    return make_dataclass(name, flags)


def parse(flags: type[Any], args: Sequence[str] | None, *, prog: str, description: str) -> Any:
    """The flags given in `args` (None: on the command line); ``--help`` prints and exits with 0.

    Raises:
        UsageError: an unknown flag, with the nearest ones, or a value that is not of its type.
    """
    given = sys.argv[1:] if args is None else list(args)
    for word in given:
        if reason := unfit(word):
            raise UsageError(f"the argument {word!r} {reason}")
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            parsed, unread = tyro.cli(
                flags,
                args=given,
                prog=f"python -m {prog}",
                description=description,
                config=(tyro.conf.DisallowNone,),
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_message(messages.getvalue(), _usage(flags, prog))) from None
    _check_sizes(parsed)
    if unread:
        known = [f"--{one.name.replace('_', '-')}" for one in fields(flags)]
        raise UsageError(str(name_errors.unknown("argument", unread[0], known)))
    return parsed


def _check_sizes(parsed: Any) -> None:
    """Numbers that no setting has would end as an overflow somewhere."""
    for name, value in vars(parsed).items():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, int) and abs(one) >= _TOO_MUCH:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} must be below {_TOO_MUCH}, got {one}")


_NUMBER = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="NUMBER",
    instance_from_str=lambda words: number(words[0]),
    is_instance=lambda value: value is None or isinstance(value, int | float),
    str_from_instance=lambda value: [str(value)],
)


def _usage(flags: type[Any], prog: str) -> str:
    words = [one.name.upper() for one in fields(flags) if one.default is MISSING]
    return " ".join((f"python -m {prog}", *words))


def _message(box: str, usage: str) -> str:
    """The message in the box that tyro draws around an error: its first paragraph."""
    lines = _first_paragraph(box)
    if missing := _missing(lines):
        return f"{'; '.join(missing)}: {usage}"
    return " ".join(" ".join(lines).split()) or " ".join(box.split())


def _first_paragraph(box: str) -> list[str]:
    """Lines within the box, framed by lines or, for an encoding that has none, by blanks."""
    rows = box.splitlines()
    framed = [row for row in rows if row.startswith("│")] or rows[2:]
    inside = [row[1:].rstrip("│ ") for row in framed]
    return list(takewhile(lambda line: line.strip(" -─"), inside))


def _missing(lines: Sequence[str]) -> list[str]:
    """Find what tyro says is missing: a name on a line, indented further what it is."""
    if not lines or not lines[0].strip().startswith("Missing from"):
        return []
    found: dict[str, list[str]] = {}
    for line in lines[1:]:
        indent = len(line) - len(line.lstrip())
        if indent == _NAME_INDENT:
            found[line.strip()] = []
        elif found:
            found[next(reversed(found))] += line.replace("(required)", "").split()
    return [f"{name} is missing ({' '.join(words)})" for name, words in found.items()]
