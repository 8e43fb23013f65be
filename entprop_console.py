"""Start the console command ``entprop``.

A file outside the package, whose import loads torch: 1.5 seconds that nobody should wait for a list
of commands. What does more than that is ``entprop_fast.lab.cli.dispatch``.
"""

import importlib
import runpy
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def main() -> int:
    """Run the command line and return the exit code."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(_commands()["overview"]("entprop"))
        return 0
    if words[0] == "--version":
        print(f"entprop_fast {version('entprop_fast')}")
        return 0
    dispatch = importlib.import_module("entprop_fast.lab.cli.dispatch")
    code: int = dispatch.main(words, ("entprop",))
    return code


def _commands() -> dict[str, Any]:
    """Return what the file of the list defines; finding a package does not import it."""
    package = find_spec("entprop_fast")
    assert package is not None and package.origin is not None  # it is installed with this file
    return runpy.run_path(str(Path(package.origin).parent / "lab" / "cli" / "commands.py"))
