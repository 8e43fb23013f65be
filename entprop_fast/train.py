"""``python -m entprop_fast.train``: train one network with one method; digits without arguments."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entprop_fast.engine import train
from entprop_fast.run import announce, cli, recipe, run_folder, usual
from entprop_fast.run.config import Config, MethodOptions
from entprop_fast.run.errors import bad_input
from entprop_fast.run.progress import Reporter
from entprop_fast.run.report import legend, scores_table
from entprop_fast.run.results import Summary
from entprop_fast.run.signals import StopSignals

_Flags = cli.flag_class(
    "TrainFlags",
    cli.recipe_flag(),
    *cli.optional_flags(Config),
    *cli.optional_flags(MethodOptions),
    cli.switch("resume", "continue the run in the run folder, with its own settings, or start it"),
    cli.switch("overwrite", "replace the run in the run folder"),
)

_DESCRIPTION = (
    "Train an image classifier that stays accurate on clean and on shifted images. "
    "A flag that is not given takes the recipe's value."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = cli.again("entprop_fast.train", args, "--resume")
    return cli.run_command(lambda signals: _train(args, signals), again=again)


def _train(args: Sequence[str] | None, signals: StopSignals) -> None:
    flags = vars(
        cli.parse(_Flags, args, prog="entprop_fast.train", description=_DESCRIPTION)
    ).copy()
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
    return usual.follow_data(chosen, flags)


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


if __name__ == "__main__":
    sys.exit(main())
