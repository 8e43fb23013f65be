"""``python -m entprop_fast.data check DATASET``: what is there, and what would spoil a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from entprop_fast import name_errors
from entprop_fast.lab.cli.command_line import (
    command_again,
    flag_class,
    optional_flag,
    optional_flags,
    optional_positional,
    parse,
    run_command,
)
from entprop_fast.lab.data.data_check import KNOWN, Report, check, check_one, is_data_set
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.tables import as_text, plain_table
from entprop_fast.lab.stopping import StopSignals
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.errors import RunFailed, bad_input

COMMANDS = ("check",)
SHOWN = 20  # problems of a data set that are printed; it counts the others
USAGE = "python -m entprop_fast.data check folder:birds, cub --data-dir DIR, or DIR: all within"

_Flags = flag_class(
    "DataFlags",
    optional_positional("command", "check: read everything and report it"),
    optional_positional(
        "target", "a data set as train --dataset takes it, or a folder of some, all of which count"
    ),
    optional_flag("dataset", str, f"of a folder: one of {', '.join(KNOWN)}; or the data set"),
    *optional_flags(Config, "data_dir"),
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code.

    0 if all is well, 1 if a run would stop, leave something out or end in a wrong accuracy, 2 for
    bad usage.
    """
    again = command_again("entprop_fast.data", args)
    return run_command(lambda signals: _main(args, signals), again=again)


def _main(args: Sequence[str] | None, signals: StopSignals) -> None:
    flags = parse(
        _Flags,
        args,
        prog="entprop_fast.data",
        description="Look at data sets before training: counts, classes, sizes, unreadable files, "
        "images that are there twice.",
    )
    reporter = Reporter()
    with bad_input():
        if not flags.command:
            raise ValueError(f"no command: {USAGE}")
        if flags.command not in COMMANDS:
            raise name_errors.unknown("command", flags.command, COMMANDS)
        reports = _reports(flags, _Watched(reporter))
    for report in reports:
        reporter.say(report.title)
        _print(report, reporter)
    if wrong := sum(len(report.problems) for report in reports):
        raise RunFailed(f"{wrong} {'problem' if wrong == 1 else 'problems'}; see above")


def _reports(flags: Any, watch: _Watched) -> list[Report]:
    data_dir = None if flags.data_dir is None else Path(flags.data_dir)
    target = flags.target or flags.dataset
    if not target and data_dir is None:
        raise ValueError(f"no data set: {USAGE}")
    if target and is_data_set(target):
        if flags.target and flags.dataset:
            raise ValueError(f"{flags.target} is a data set: --dataset {flags.dataset} is a second")
        if data_dir is not None and not data_dir.is_dir():
            raise FileNotFoundError(f"--data-dir {data_dir}: there is no such folder")
        return [check_one(target, data_dir, watch)]
    if flags.target and data_dir is not None:
        raise name_errors.unknown("dataset", flags.target, KNOWN)
    return check(data_dir or Path(flags.target), flags.dataset, watch)


class _Watched:
    """Shows how much is read: a bar on a terminal, a line now and then in a log."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def __call__(self, items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
        """Pass the items on."""
        with self.reporter.task(f"reading {total:,} {what}", total) as task:
            for number, item in enumerate(items, start=1):
                task.reach(number)
                yield item


def _print(report: Report, reporter: Reporter) -> None:
    """A table where there is a window to fold long names in, else a line for each row."""
    rows = [*report.facts, *(("note", text) for text in report.notes)]
    rows += [("problem", text) for text in report.problems[:SHOWN]]
    if len(report.problems) > SHOWN:
        rows.append(("", f"and {len(report.problems) - SHOWN:,} problems more"))
    if reporter.console.is_terminal:
        table = plain_table()
        table.show_header = False
        table.add_column()
        table.add_column(overflow="fold")
        for what, text in rows:
            table.add_row(as_text(f"  {what}"), as_text(text))
        reporter.console.print(table, highlight=False)
        return
    wide = max(len(what) for what, _ in rows)
    for what, text in rows:
        reporter.say(f"  {what:<{wide}}  {text}")
