"""``python -m entprop_fast.data check DIR``: what is there, and what would stop a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from entprop_fast import names
from entprop_fast.data.check import KNOWN, Report, check
from entprop_fast.run import cli
from entprop_fast.run.errors import RunFailed, bad_input
from entprop_fast.run.signals import StopSignals

COMMANDS = ("check",)
SHOWN = 20  # problems of a data set that are printed; it counts the others

_Flags = cli.flag_class(
    "DataFlags",
    cli.positional("command", "check: read everything and report it"),
    cli.positional("folder", "the folder that --data-dir would name"),
    cli.optional_flag("dataset", str, f"one of {', '.join(KNOWN)}; all that are found otherwise"),
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code.

    0 if all is well, 1 if a run would stop or leave something out, 2 for bad usage.
    """
    again = cli.again("entprop_fast.data", args)
    return cli.run_command(lambda signals: _main(args, signals), again=again)


def _main(args: Sequence[str] | None, signals: StopSignals) -> None:
    flags = cli.parse(
        _Flags,
        args,
        prog="entprop_fast.data",
        description="Look at data sets before training: counts, classes, sizes, unreadable files.",
    )
    with bad_input():
        if flags.command not in COMMANDS:
            raise names.unknown("command", flags.command, COMMANDS)
        reports = check(Path(flags.folder), flags.dataset)
    for report in reports:
        print(_text(report))
    if wrong := sum(len(report.problems) for report in reports):
        raise RunFailed(f"{wrong} {'problem' if wrong == 1 else 'problems'}; see above")


def _text(report: Report) -> str:
    lines = [f"{report.name}, in {report.where}"]
    lines += [f"  {what + ':':<11} {text}" for what, text in report.facts]
    lines += [f"  problem:    {text}" for text in report.problems[:SHOWN]]
    if len(report.problems) > SHOWN:
        lines.append(f"  and {len(report.problems) - SHOWN} problems more")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
