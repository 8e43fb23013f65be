"""Run a command by its name: ``entprop train ...``, ``python -m entprop_fast train ...``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import entprop_fast
from entprop_fast import name_errors
from entprop_fast.lab.cli.called import called_through
from entprop_fast.lab.cli.commands import COMMANDS, overview, typed

MODULE = ("python", "-m", "entprop_fast")
HELP = ("-h", "--help")
EXIT_USAGE = 2


def main(args: Sequence[str] | None = None, program: Sequence[str] = MODULE) -> int:
    """Run the command that the first word names, and return its exit code.

    Args:
        args: the words, None for the command line's.
        program: what the user typed before them.

    Returns:
        0 after the list of commands, 2 after a name that is none, else the command's.
    """
    given = list(sys.argv[1:] if args is None else args)
    if not given or given[0] in HELP:
        print(overview(" ".join(program)))
        return 0
    if given[0] == "--version":
        print(f"entprop_fast {entprop_fast.__version__}")
        return 0
    name = given[0].replace("-", "_")
    if name not in COMMANDS:
        error = name_errors.unknown("command", given[0], map(typed, COMMANDS))
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    command = importlib.import_module(f"{__package__}.{name}")
    with called_through(*program):
        return int(command.main(given[1:]))
