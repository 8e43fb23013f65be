"""Run a study, ``python -m entprop_fast.study NAME``: a table, a picture and a sentence."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from entprop_fast import name_errors
from entprop_fast.lab.cli import announce
from entprop_fast.lab.cli.command_line import command_again, run_command
from entprop_fast.lab.cli.flags import (
    POSITIONAL,
    Flag,
    own_flags,
    parse,
    run_flags,
)
from entprop_fast.lab.cli.shared_options import data_option, model_option, recipe_option
from entprop_fast.lab.experiments.studies import STUDIES, Options, score
from entprop_fast.lab.experiments.studies.form import markdown, write
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.tables import legend
from entprop_fast.lab.training import follow_data, recipe, user_code
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.errors import UsageError, bad_input, failing
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.options import option

QUICK_EPOCHS = 20  # minutes on digits; fewer seeds would leave no interval that says anything

_DESCRIPTION = "Train what the study needs, and end in a table, a picture and one sentence.\n" + (
    "\n".join(f"- {study.name}: {study.help}" for study in STUDIES.values())
)


@dataclass(frozen=True, kw_only=True)
class _Flags:
    name: str = option(help=f"Study: one of {', '.join(STUDIES)}.", group=POSITIONAL)
    recipe: str | None = recipe_option()
    model: str | None = model_option()
    data: str | None = data_option()
    dataset: str | None = option(None, "Data set. Left out, it is the recipe's.", group="data")
    train_size: int | None = option(
        None, "Training images. Left out, there are 200, or all of --data.", low=1, group="data"
    )
    seeds: tuple[int, ...] | None = option(
        None, "Seeds of the runs. Left out, they are 0 1 2 3 4.", low=0, group="study"
    )
    archs: tuple[str, ...] | None = option(
        None,
        "Architectures that the study score compares. Left out, there are three.",
        group="study",
    )
    quick: bool = option(
        False, f"Train {QUICK_EPOCHS} epochs, where --epochs is not given.", group="study"
    )
    epochs: int | None = option(
        None, "Epochs of every run. Left out, they are the recipe's.", low=1, group="training"
    )
    workers: int | None = option(
        None, "Processes. Left out, there is one for each core.", low=1, group="machine"
    )
    out: str | None = option(
        None, "Folder of the results and runs. Left out, it is runs/study-NAME.", group="output"
    )


def _more_flags() -> list[Flag]:
    return [*own_flags(Config, "data_dir", "corruptions", "device"), *run_flags("batch_size")]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.study", args)
    return run_command(lambda: _study(args), again=again)


def _study(args: Sequence[str] | None) -> None:
    _help_of_one(sys.argv[1:] if args is None else args)
    flags, settings = parse(
        _Flags,
        args,
        prog="entprop_fast.study",
        description=_DESCRIPTION,
        more=_more_flags(),
    )
    with bad_input():
        if flags.name not in STUDIES:
            raise name_errors.unknown("study", flags.name, STUDIES)
        study, options = STUDIES[flags.name], _options(flags, settings)
        lines = _announced(options)
    folder = RunFolder(options.out)
    reporter = Reporter()
    with folder.claimed(reporter.say, wait="for its end"):
        pass  # it can be written
    reporter.say(f"{study.name}: {study.help}")
    for line in lines:
        reporter.say(line)
    result = study.run(options, reporter)
    kept = failing("the runs are kept: the same command writes it")
    with folder.claimed(reporter.say, wait="for its end"), kept:  # as other machines do
        write(result, study, options)
    reporter.say(markdown(result.rows))
    reporter.say(result.sentence)
    reporter.say(legend(result.rows[0]))
    reporter.say(f"table.md, table.json and picture.png in {options.out}")


def _help_of_one(words: Sequence[str]) -> None:
    """Print the help of the study that is named, and exit, where that is asked for."""
    if {"-h", "--help"}.isdisjoint(words):
        return
    study = next((STUDIES[word] for word in words if word in STUDIES), None)
    if study is not None:
        no_flag = {"model"} if study.name == score.STUDY.name else {"archs"}
        parse(
            _Flags,
            ["--help"],
            prog=f"entprop_fast.study {study.name}",
            description=f"{study.help}\nCompared: {study.compared}.",
            more=_more_flags(),
            without={"name", *no_flag},
        )


def _announced(options: Options) -> list[str]:
    """Write the first lines: of the settings that the study varies."""
    config = recipe.resolve(options.recipe, epochs=options.epochs, **options.overrides)
    return announce.announce(options.recipe, config)


def _options(flags: _Flags, settings: dict[str, Any]) -> Options:
    given = vars(flags) | settings
    options = Options(out=Path(flags.out or f"runs/study-{flags.name}"))
    if flags.quick:
        options = replace(options, epochs=QUICK_EPOCHS)
    taken = ("seeds", "train_size", "epochs", "device", "data_dir", "archs", "workers")
    chosen = {name: given[name] for name in taken if given.get(name) is not None}
    beneath = ("dataset", "corruptions", "batch_size")
    over = {name: given[name] for name in beneath if given.get(name) is not None}
    over = user_code.named(flags.model, flags.data, over)
    if flags.model is not None and flags.name == score.STUDY.name:
        raise UsageError(
            f"--model {flags.model}: the study {score.STUDY.name} compares architectures by name"
        )
    source, followed = follow_data.follow_data(
        flags.recipe, over | {"data_dir": settings.get("data_dir")}
    )
    over = {name: value for name, value in followed.items() if name != "data_dir"}
    if flags.data is not None:
        chosen.setdefault("train_size", None)  # a Dataset has no part that could be chosen
    options = replace(options, **chosen, recipe=str(source), overrides=over)
    if not options.seeds or len(set(options.seeds)) < len(options.seeds):
        raise UsageError(f"--seeds {options.seeds}: expected different seeds, at least one")
    if options.archs is not None and flags.name != score.STUDY.name:
        raise UsageError(
            f"--archs: only the study {score.STUDY.name} compares architectures; give "
            f"{flags.name} a recipe with the arch"
        )
    if options.archs is not None and len(set(options.archs)) < max(1, len(options.archs)):
        raise UsageError(f"--archs {options.archs}: expected different ones, at least one")
    return options
