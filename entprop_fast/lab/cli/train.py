"""Train one network with one method, ``python -m entprop_fast.train``; digits by default."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entprop_fast.lab import job
from entprop_fast.lab.cli import announce, dry_run
from entprop_fast.lab.cli.command_line import command_again, run_command
from entprop_fast.lab.cli.flags import (
    Flag,
    method_flags,
    parse,
    run_flags,
)
from entprop_fast.lab.cli.shared_options import data_option, model_option, recipe_option
from entprop_fast.lab.report.numbers import number
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.tables import legend, scores_table
from entprop_fast.lab.training import follow_data, own_names, recipe, run_folder, user_code
from entprop_fast.lab.training.engine import train
from entprop_fast.lab.training.errors import bad_input
from entprop_fast.lab.training.finish import Summary
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.options import option


@dataclass(frozen=True, kw_only=True)
class _Flags:
    recipe: str | None = recipe_option()
    model: str | None = model_option()
    data: str | None = data_option()
    resume: bool = option(
        False,
        "Continue the run in the run folder with its own settings, or start it.",
        group="output",
    )
    overwrite: bool = option(False, "Replace the run in the run folder.", group="output")
    dry_run: bool = option(
        False,
        "Print the settings, the cost, the memory and the time of one measured step, and an "
        "estimate of the whole; train nothing and write nothing.",
        group="output",
    )


_DESCRIPTION = (
    "Train an image classifier that stays accurate on clean and on shifted images. "
    "A flag that is not given takes the recipe's value. Numbers such as (5) are those of "
    "docs/algorithm.md."
)


def _more_flags() -> list[Flag]:
    return [*run_flags(), *method_flags()]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.train", args, "--resume")
    return run_command(lambda: _train(args), again=again, together=True)


def _train(args: Sequence[str] | None) -> None:
    flags, settings = parse(
        _Flags,
        args,
        prog="entprop_fast.train",
        description=_DESCRIPTION,
        more=_more_flags(),
    )
    with bad_input():
        settings = user_code.named(flags.model, flags.data, settings)
        source, settings = _followed(flags, settings)
        config = recipe.resolve(source, **settings)
    reporter = Reporter()
    if flags.dry_run:
        for line in dry_run.lines(config, reporter):
            reporter.say(line)
        return
    reporter.say(f"{config.method} of {config.arch} on {config.dataset}, into {config.folder}")
    for line in announce.announce(source, config):
        reporter.say(line)
    if flags.model and (hint := own_names.other_images(config.arch, config.dataset)):
        reporter.say(f"the images are {config.dataset}: {hint}")
    resume, overwrite = flags.resume, flags.overwrite
    if job.remembers(RunFolder(config.folder).known_as):
        reporter.say(f"torchrun started the job again: going on with its run in {config.folder}")
        resume, overwrite = True, False
    summary = train(config, resume=resume, overwrite=overwrite, reporter=reporter)
    _print(summary, reporter)


def _followed(flags: _Flags, settings: dict[str, Any]) -> tuple[str | Path, dict[str, Any]]:
    """Choose the recipe and the settings over it; a run that is continued brings its own."""
    if flags.resume and not flags.recipe and "out" in settings:
        own = Path(settings["out"]) / run_folder.CONFIG
        if own.is_file():
            return own, settings
    return follow_data.follow_data(flags.recipe, settings)


def _print(summary: Summary, reporter: Reporter) -> None:
    row = {
        "method": summary.method,
        "SA": summary.sa,
        "RA": summary.ra,
        "Hscore": summary.hscore,
        "cost": summary.cost,
        "images/s": summary.images_per_second,
        "seconds": summary.seconds,
    }
    reporter.console.print(scores_table([row]))
    reporter.say(legend(row))
    reporter.say(f"corruptions behind RA: {summary.corruption_source or 'none'}")
    if summary.shifts:
        shifts = (
            f"{name} {number(found['accuracy'])} (SA less {number(found['drop'])})"
            for name, found in summary.shifts.items()
        )
        reporter.say(f"natural shifts, accuracy in percent: {', '.join(shifts)}")
    reporter.say(f"files in {summary.folder}: {', '.join(sorted(os.listdir(summary.folder)))}")
