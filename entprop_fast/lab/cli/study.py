"""``python -m entprop_fast.study NAME``: a table, a picture and the sentence that they support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from entprop_fast import name_errors
from entprop_fast.lab.cli import announce
from entprop_fast.lab.cli.command_line import (
    command_again,
    flag_class,
    optional_flag,
    optional_flags,
    parse,
    positional,
    recipe_flag,
    run_command,
    several,
    switch,
)
from entprop_fast.lab.experiments.studies import STUDIES, Options, score
from entprop_fast.lab.experiments.studies.form import markdown, write
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.tables import legend
from entprop_fast.lab.stopping import StopSignals
from entprop_fast.lab.training import follow_data, recipe
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.errors import UsageError, bad_input, failing
from entprop_fast.lab.training.run_folder import RunFolder

QUICK_EPOCHS = 20  # minutes on digits; fewer seeds would leave no interval that says anything

_DESCRIPTION = "Train what the study needs, and end in a table, a picture and one sentence: " + (
    "; ".join(f"{study.name}: {study.help}" for study in STUDIES.values())
)

_Flags = flag_class(
    "StudyFlags",
    positional("name", f"one of {', '.join(STUDIES)}"),
    optional_flag("out", str, "folder of the results and runs, runs/study-NAME if left out"),
    optional_flag("seeds", tuple[int, ...], "of the runs, 0 1 2 3 4 when left out"),
    optional_flag("train_size", int, "training images, 200 when left out"),
    optional_flag("epochs", int, "of every run, the recipe's when left out"),
    *optional_flags(Config, "data_dir", "corruptions", "device"),
    recipe_flag(),
    optional_flag("dataset", str, "the recipe's when left out"),
    several("archs", str, "architectures that the study score compares, three when left out"),
    optional_flag("workers", int, "processes, one for each core when left out"),
    switch("quick", f"{QUICK_EPOCHS} epochs, where --epochs is not given"),
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.study", args)
    return run_command(lambda signals: _study(args, signals), again=again)


def _study(args: Sequence[str] | None, signals: StopSignals) -> None:
    flags = parse(_Flags, args, prog="entprop_fast.study", description=_DESCRIPTION)
    with bad_input():
        if flags.name not in STUDIES:
            raise name_errors.unknown("study", flags.name, STUDIES)
        study, options = STUDIES[flags.name], _options(flags)
        lines = _announced(options)
    folder = RunFolder(options.out)
    folder.claim()
    reporter = Reporter()
    reporter.say(f"{study.name}: {study.help}")
    for line in lines:
        reporter.say(line)
    try:
        result = study.run(options, reporter)
        with failing("the runs are kept: the same command writes it"):
            write(result, study, options)
    finally:
        folder.release()
    reporter.say(markdown(result.rows))
    reporter.say(result.sentence)
    reporter.say(legend(result.rows[0]))
    reporter.say(f"table.md, table.json and picture.png in {options.out}")


def _announced(options: Options) -> list[str]:
    """Write the first lines: of the settings that the study varies."""
    config = recipe.resolve(options.recipe, epochs=options.epochs, **options.overrides)
    return announce.announce(options.recipe, config)


def _options(flags: object) -> Options:
    given = vars(flags).copy()
    out, quick = given["out"] or f"runs/study-{given['name']}", given["quick"]
    options = Options(out=Path(out))
    if quick:
        options = replace(options, epochs=QUICK_EPOCHS)
    taken = ("seeds", "train_size", "epochs", "device", "data_dir", "archs", "workers")
    chosen = {name: given[name] for name in taken if given[name] is not None}
    over = {name: given[name] for name in ("dataset", "corruptions") if given[name] is not None}
    source, followed = follow_data.follow_data(
        given["recipe"], over | {"data_dir": given["data_dir"]}
    )
    over = {name: value for name, value in followed.items() if name != "data_dir"}
    options = replace(options, **chosen, recipe=str(source), overrides=over)
    if not options.seeds or len(set(options.seeds)) < len(options.seeds):
        raise UsageError(f"--seeds {options.seeds}: expected different seeds, at least one")
    if options.archs is not None and given["name"] != score.STUDY.name:
        raise UsageError(
            f"--archs: only the study {score.STUDY.name} compares architectures; give "
            f"{given['name']} a recipe with the arch"
        )
    if options.archs is not None and len(set(options.archs)) < max(1, len(options.archs)):
        raise UsageError(f"--archs {options.archs}: expected different ones, at least one")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers {options.workers}: expected at least 1")
    return options
