"""Look at a data set before a run, or make one: ``python -m entprop_fast.data check DATASET``."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entprop_fast import name_errors
from entprop_fast.augment import PixMix
from entprop_fast.augment.fractal_cache import SIZES
from entprop_fast.lab.cli.called import words_of
from entprop_fast.lab.cli.command_line import command_again, run_command
from entprop_fast.lab.cli.flags import POSITIONAL, Flag, own_flags, parse
from entprop_fast.lab.cli.make_fractals import make_set
from entprop_fast.lab.data.contents import Watch
from entprop_fast.lab.data.data_check import KNOWN, Report, check, check_one, is_data_set
from entprop_fast.lab.data.emoji.build_emoji import build
from entprop_fast.lab.data.emoji_set import NAME as EMOJI
from entprop_fast.lab.data.emoji_set import SIDE, USUAL
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.tables import as_text, plain_table
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.errors import RunFailed, bad_input
from entprop_fast.options import option, options_of

# Which flags each command takes.
COMMANDS = {
    "check": ("target", "dataset", "data_dir"),
    "emoji": ("image_size", "out"),
    "fractals": ("image_size", "out", "count", "seed", "sheet"),
}
_MODULE = "entprop_fast.data"
_FRACTALS: int = options_of(PixMix)["pictures"].default
SHOWN = 20  # problems of a data set that are printed; it counts the others
USAGE = "check folder:birds, cub --data-dir DIR, or DIR: all within; emoji, fractals: make those"


@dataclass(frozen=True, kw_only=True)
class _Flags:
    command: str = option(
        "",
        "check: read everything and report it. emoji: draw the emoji set out of npm's packages. "
        "fractals: make the pictures that the augmentation pixmix mixes in.",
        group=POSITIONAL,
    )
    target: str = option(
        "",
        "A data set as train --dataset takes it, or a folder of some, all of which count.",
        group=POSITIONAL,
    )
    dataset: str | None = option(
        None, f"Data set, or, with a folder of some, one of {', '.join(KNOWN)}.", group="data"
    )
    image_size: int | None = option(
        None,
        f"Height and width of the emoji, {SIDE} where it is left out, or of the fractals, "
        f"{SIZES[0]}. PixMix mixes in fractals of {', '.join(map(str, SIZES))}: of the first that "
        "is at least 9/8 of the images' side, else of the last.",
        low=8,
        high=1024,
        unit="pixels",
        group="data",
    )
    count: int | None = option(
        None,
        f"Number of fractals, {_FRACTALS} where it is left out, as PixMix takes them.",
        low=1,
        high=100_000,
        group="data",
    )
    seed: int | None = option(
        None, "Seed of the fractals, 0 where it is left out.", low=0, group="data"
    )
    sheet: str | None = option(
        None, "PNG to write that shows the first 128 fractals.", group="output"
    )
    out: str | None = option(
        None,
        f"Folder for the emoji set, {USUAL} where it is left out, or for the fractals, the cache "
        "where pixmix looks for them.",
        group="output",
    )


def _more_flags() -> list[Flag]:
    return own_flags(Config, "data_dir")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code.

    0 if all is well, 1 if a run would stop, leave something out or end in a wrong accuracy, 2 for
    bad usage.
    """
    again = command_again(_MODULE, args)
    return run_command(lambda: _main(args), again=again)


def _main(args: Sequence[str] | None) -> None:
    flags, settings = parse(
        _Flags,
        args,
        prog=_MODULE,
        description="Look at data sets before training: counts, classes, sizes, unreadable files, "
        "images that are there twice. Or make one.",
        more=_more_flags(),
    )
    data_dir = Path(settings["data_dir"]) if "data_dir" in settings else None
    reporter = Reporter()
    with bad_input():
        if not flags.command:
            raise ValueError(f"no command: {_usage()}")
        if flags.command not in COMMANDS:
            raise name_errors.unknown("command", flags.command, COMMANDS)
        _check_flags(flags, data_dir)
        if flags.command == EMOJI:
            size = SIDE if flags.image_size is None else flags.image_size
            build(Path(flags.out or USUAL), size, reporter.say, watching(reporter))
            return
        if flags.command == "fractals":
            size, count = flags.image_size or SIZES[0], flags.count or _FRACTALS
            make_set(count, size, flags.seed or 0, flags.out, flags.sheet, reporter)
            return
        reports = _reports(flags, data_dir, watching(reporter))
    for report in reports:
        reporter.say(report.title)
        print_report(report, reporter)
    if wrong := sum(len(report.problems) for report in reports):
        raise RunFailed(f"{wrong} {'problem' if wrong == 1 else 'problems'}; see above")


def _check_flags(flags: _Flags, data_dir: Path | None) -> None:
    given = vars(flags) | {"data_dir": data_dir}
    for name, value in given.items():
        taken = COMMANDS[flags.command]
        if name != "command" and name not in taken and value not in (None, ""):
            typed = "" if name == "target" else f"--{name.replace('_', '-')} "
            listed = ", ".join(f"--{one.replace('_', '-')}" for one in taken if one != "target")
            raise ValueError(f"{typed}{value}: the command {flags.command} takes {listed}")


def _usage() -> str:
    return f"{shlex.join(words_of(_MODULE))} {USAGE}"


def _reports(flags: _Flags, data_dir: Path | None, watch: Watch[Any]) -> list[Report]:
    target = flags.target or flags.dataset
    if not target and data_dir is None:
        raise ValueError(f"no data set: {_usage()}")
    if target and is_data_set(target):
        if flags.target and flags.dataset:
            raise ValueError(f"{flags.target} is a data set: --dataset {flags.dataset} is a second")
        if data_dir is not None and not data_dir.is_dir():
            raise FileNotFoundError(f"--data-dir {data_dir}: there is no such folder")
        return [check_one(target, data_dir, watch)]
    if flags.target and data_dir is not None:
        raise name_errors.unknown("dataset", flags.target, KNOWN)
    return check(data_dir or Path(flags.target), flags.dataset, watch)


def watching(reporter: Reporter) -> Watch[Any]:
    """Return what shows how much is read: a bar on a terminal, a line now and then in a log."""

    def watched(items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
        with reporter.task(f"reading {total:,} {what}", total) as task:
            for number, item in enumerate(items, start=1):
                task.reach(number)
                yield item

    return watched


def print_report(report: Report, reporter: Reporter) -> None:
    """Print a table where there is a window to fold long names in, else a line for each row."""
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
