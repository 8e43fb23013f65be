"""Compare methods by seeds on one data set, fairly: ``python -m entprop_fast.compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from entprop_fast import name_errors
from entprop_fast.lab.cli import announce
from entprop_fast.lab.cli.command_line import command_again, run_command
from entprop_fast.lab.cli.flags import (
    Flag,
    method_flags,
    parse,
    run_flags,
)
from entprop_fast.lab.cli.shared_options import data_option, model_option, recipe_option
from entprop_fast.lab.experiments.comparison import comparison_tables, method_rows, variants
from entprop_fast.lab.experiments.comparison.comparison_files import document, table_of
from entprop_fast.lab.experiments.comparison.plan import BUDGETS, finished_summary, resolve_runs
from entprop_fast.lab.experiments.runner import run_all, source_of
from entprop_fast.lab.experiments.workers import places
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training import follow_data, user_code
from entprop_fast.lab.training.augment_setting import NONE
from entprop_fast.lab.training.errors import RunFailed, bad_input, failing
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.methods import METHODS
from entprop_fast.options import option

_ROWS = (
    f"Rows of the table: any of {', '.join(METHODS)}, with options of their own if wanted, as in "
    "entprop:score=random,k=0.5, and with augmentations that are appended to those of all rows, as "
    "in entprop@augmix."
)


@dataclass(frozen=True, kw_only=True)
class _Flags:
    recipe: str | None = recipe_option()
    model: str | None = model_option()
    data: str | None = data_option()
    methods: tuple[str, ...] = option(help=_ROWS, group="comparison")
    seeds: tuple[int, ...] = option(
        (0, 1, 2), "Seeds; each row is run with each of them.", low=0, group="comparison"
    )
    budget: str = option(
        "epochs", "What is equal for all rows.", choices=BUDGETS, group="comparison"
    )
    baseline: str | None = option(
        None,
        "Row that the others are compared with. Left out, it is the first.",
        group="comparison",
    )
    jobs: int | None = option(
        None, "Runs at a time. Left out, it is one a core or GPU.", group="machine"
    )
    out: str | None = option(
        None,
        "Folder of the comparison. Left out, it is runs/compare-<dataset>-<arch>.",
        group="output",
    )
    overwrite: bool = option(
        False, "Run everything anew, in place of what the folder holds.", group="output"
    )


_DESCRIPTION = (
    "Train several methods with several seeds on one data set and compare them. Finished runs are "
    "not repeated, broken ones are resumed; started on several machines that share the folder, the "
    "command shares the runs out. A flag that is not given takes the recipe's value; an "
    "option goes to the methods that have it. Numbers such as (5) are those of docs/algorithm.md."
)


def _more_flags() -> list[Flag]:
    # A row says its method, each seed is a run, and runs have folders in that of all.
    return [*run_flags(without=("method", "seed", "out", "time")), *method_flags()]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.compare", args)
    return run_command(lambda: _compare(args), again=again)


def _compare(args: Sequence[str] | None) -> None:
    flags, settings = parse(
        _Flags,
        args,
        prog="entprop_fast.compare",
        description=_DESCRIPTION,
        more=_more_flags(),
    )
    with bad_input():
        rows = variants.parse_all(flags.methods)
        baseline = flags.baseline or rows[0].name
        if baseline not in (row.name for row in rows):
            raise name_errors.unknown("baseline", baseline, [row.name for row in rows])
        settings.setdefault("threads", 1)
        settings = user_code.named(flags.model, flags.data, settings)
        source, settings = follow_data.follow_data(flags.recipe, settings)
        runs = resolve_runs(source, rows, flags.seeds, settings, out=flags.out, budget=flags.budget)
        first = runs[0].config
        devices = places(first.device, flags.jobs, first.threads or 1)
    reporter = Reporter()
    own = any(row.augment != NONE for row in rows)
    reporter.say(announce.settings(source, first, "as the rows say" if own else None))
    for run in runs[: len(rows)]:
        augment = f", augment {run.config.augment}" if own else ""
        reporter.say(f"{run.variant}: {announce.method(run.config)}{augment}")
    for line in announce.warnings(run.config for run in runs):
        reporter.say(line)
    results = run_all(runs, devices, reporter, finished_summary, overwrite=flags.overwrite)
    table = table_of(runs, results, baseline)
    shown = {
        "recipe": source,
        "dataset": first.dataset,
        "arch": first.arch,
        "budget": flags.budget,
        "baseline": baseline,
        "seeds": list(flags.seeds),
    }
    folder = Path(first.folder).parent
    kept = failing("the runs are kept: the same command writes the table")
    with RunFolder(folder).claimed(reporter.say, wait="for its end"), kept:
        document(folder, shown, runs, results, table)
    reporter.console.print(*comparison_tables.terminal_tables(table, baseline), sep="\n")
    reporter.say(method_rows.statement(table, baseline))
    metric = method_rows.compared_metric(table)
    reporter.say(comparison_tables.legend(baseline, metric=metric))
    reporter.say(f"corruptions behind RA: {source_of(results.records) or 'none'}")
    for row in table:
        for seed, why in row.failures.items():
            reporter.say(f"{row.name}, seed {seed}, failed: {why}")
    reporter.say(f"compare.md, compare.json, compare.png and every run's folder are in {folder}")
    if results.failures:
        raise RunFailed(f"{len(results.failures)} of {len(runs)} runs; see above")
