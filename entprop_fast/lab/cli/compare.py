"""``python -m entprop_fast.compare``: methods by seeds on one data set, compared fairly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from entprop_fast import name_errors
from entprop_fast.lab.cli import announce
from entprop_fast.lab.cli.command_line import (
    command_again,
    flag_class,
    optional_flag,
    optional_flags,
    parse,
    recipe_flag,
    run_command,
    several,
    switch,
)
from entprop_fast.lab.experiments.comparison import comparison_tables, method_rows, variants
from entprop_fast.lab.experiments.comparison.comparison_files import document, table_of
from entprop_fast.lab.experiments.comparison.plan import finished_summary, resolve_runs
from entprop_fast.lab.experiments.runner import run_all, source_of
from entprop_fast.lab.experiments.workers import places
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.stop_signals import StopSignals
from entprop_fast.lab.training import follow_data
from entprop_fast.lab.training.config import Config, MethodOptions
from entprop_fast.lab.training.errors import RunFailed, bad_input, failing
from entprop_fast.methods import METHODS

_ROWS = (
    f"rows of the table: any of {', '.join(METHODS)}, with options of their own if wanted, as in "
    "entprop:score=random,k=0.5"
)
_OWN_FLAGS = ("method", "seed", "out")  # here they are several, or mean another folder

_Flags = flag_class(
    "CompareFlags",
    several("methods", str, _ROWS),
    several("seeds", int, "a run of each row with each, 0 1 2 when left out"),
    optional_flag("budget", str, "what is equal for all rows: epochs (the default) or passes"),
    optional_flag("baseline", str, "the row that others are compared with, the first one"),
    optional_flag("jobs", int, "runs at a time, one a core or GPU when left out"),
    optional_flag("out", str, "folder, runs/compare-<dataset>-<arch> when left out"),
    recipe_flag(),
    *(flag for flag in optional_flags(Config) if flag[0] not in _OWN_FLAGS),
    *optional_flags(MethodOptions),
    switch("overwrite", "run everything anew, in place of what the folder holds"),
)

_DESCRIPTION = (
    "Train several methods with several seeds on one data set and compare them. Finished runs are "
    "not repeated, broken ones are resumed. A flag that is not given takes the recipe's value; an "
    "option goes to the methods that have it."
)
_SEEDS = (0, 1, 2)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.compare", args)
    return run_command(lambda signals: _compare(args, signals), again=again)


def _compare(args: Sequence[str] | None, signals: StopSignals) -> None:
    flags = vars(parse(_Flags, args, prog="entprop_fast.compare", description=_DESCRIPTION)).copy()
    seeds, budget = flags.pop("seeds") or _SEEDS, flags.pop("budget") or "epochs"
    jobs, overwrite, out = flags.pop("jobs"), flags.pop("overwrite"), flags.pop("out")
    with bad_input():
        rows = variants.parse_all(flags.pop("methods") or ())
        baseline = flags.pop("baseline") or rows[0].name
        if baseline not in (row.name for row in rows):
            raise name_errors.unknown("baseline", baseline, [row.name for row in rows])
        if flags["threads"] is None:
            flags["threads"] = 1
        source, flags = follow_data.follow_data(flags.pop("recipe"), flags)
        runs = resolve_runs(source, rows, seeds, flags, out=out, budget=budget)
        first = runs[0].config
        devices = places(first.device, jobs, first.threads or 1)
    reporter = Reporter()
    reporter.say(announce.settings(source, first))
    for run in runs[: len(rows)]:
        reporter.say(f"{run.variant}: {announce.method(run.config)}")
    for line in announce.warnings(run.config for run in runs):
        reporter.say(line)
    results = run_all(runs, devices, reporter, finished_summary, overwrite=overwrite)
    table = table_of(runs, results, baseline)
    settings = {
        "recipe": source,
        "dataset": first.dataset,
        "arch": first.arch,
        "budget": budget,
        "baseline": baseline,
        "seeds": list(seeds),
    }
    folder = Path(first.folder).parent
    with failing("the runs are kept: the same command writes the table"):
        document(folder, settings, runs, results, table)
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
