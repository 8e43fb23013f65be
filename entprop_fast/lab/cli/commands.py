"""List the commands, each in a sentence: ``python -m entprop_fast``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from entprop_fast import name_errors

COMMANDS = {
    "train": "train one network with one method; digits without arguments",
    "evaluate": "measure networks on clean, corrupted and attacked test images",
    "compare": "train several methods with several seeds, and compare them fairly",
    "study": "train what answers one question, and end in a table and a sentence",
    "report": "write runs as one HTML file: curves, corruptions, mistakes, norms, speed",
    "corrupt": "write a corrupted copy of a test set, in the published layout",
    "data": "look at data sets before training: what is there, what would stop a run",
    "env_report": "print what a bug report should hold: versions, machine, kernels",
}


def main(args: Sequence[str] | None = None) -> int:
    """Print the commands and return the exit code: 0, or 2 after an argument, which none takes."""
    given = list(sys.argv[1:] if args is None else args)
    if given and given[0] not in ("-h", "--help"):
        name = given[0]
        if name in COMMANDS:
            print(f"error: python -m entprop_fast.{name} is the command", file=sys.stderr)
        else:
            print(f"error: {name_errors.unknown('command', name, COMMANDS)}", file=sys.stderr)
        return 2
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    print("python -m entprop_fast.COMMAND, --help after it:", *lines, sep="\n")
    return 0
