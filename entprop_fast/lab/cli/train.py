"""``python -m entprop_fast.train``: train one network with one method; digits without arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entprop_fast.lab.cli import announce
from entprop_fast.lab.cli.command_line import (
    command_again,
    flag_class,
    optional_flags,
    parse,
    recipe_flag,
    run_command,
    switch,
)
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.tables import legend, scores_table
from entprop_fast.lab.stopping import StopSignals
from entprop_fast.lab.training import follow_data, recipe, run_folder
from entprop_fast.lab.training.config import Config, MethodOptions
from entprop_fast.lab.training.engine import train
from entprop_fast.lab.training.errors import bad_input
from entprop_fast.lab.training.finish import Summary

_Flags = flag_class(
    "TrainFlags",
    recipe_flag(),
    *optional_flags(Config),
    *optional_flags(MethodOptions),
    switch("resume", "continue the run in the run folder, with its own settings, or start it"),
    switch("overwrite", "replace the run in the run folder"),
)

_DESCRIPTION = (
    "Train an image classifier that stays accurate on clean and on shifted images. "
    "A flag that is not given takes the recipe's value."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.train", args, "--resume")
    return run_command(lambda signals: _train(args, signals), again=again)


def _train(args: Sequence[str] | None, signals: StopSignals) -> None:
    flags = vars(parse(_Flags, args, prog="entprop_fast.train", description=_DESCRIPTION)).copy()
    resume, overwrite = flags.pop("resume"), flags.pop("overwrite")
    chosen = flags.pop("recipe")
    with bad_input():
        source, settings = _followed(chosen, flags, resume)
        config = recipe.resolve(source, **settings)
    reporter = Reporter()
    reporter.say(f"{config.method} of {config.arch} on {config.dataset}, into {config.folder}")
    for line in announce.announce(source, config):
        reporter.say(line)
    summary = train(config, resume=resume, overwrite=overwrite, reporter=reporter, signals=signals)
    _print(summary, reporter)


def _followed(
    chosen: str | None, flags: dict[str, Any], resume: bool
) -> tuple[str | Path, dict[str, Any]]:
    """Choose the recipe and the settings over it; a run that is continued brings its own."""
    out = flags["out"]
    if resume and not chosen and out is not None and (Path(out) / run_folder.CONFIG).is_file():
        return Path(out) / run_folder.CONFIG, flags
    return follow_data.follow_data(chosen, flags)


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
    reporter.say(f"files in {summary.folder}: {', '.join(sorted(os.listdir(summary.folder)))}")
