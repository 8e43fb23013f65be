"""``python -m entprop_fast.compare``: methods by seeds on one data set, compared fairly."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from entprop_fast import names
from entprop_fast.methods import METHODS
from entprop_fast.run import announce, cli, usual
from entprop_fast.run.comparison import results, tables, variants
from entprop_fast.run.comparison.conduct import conduct, document, source_of, table_of
from entprop_fast.run.comparison.plan import resolve_runs
from entprop_fast.run.comparison.workers import places
from entprop_fast.run.config import Config, MethodOptions
from entprop_fast.run.errors import RunFailed, bad_input, failing
from entprop_fast.run.progress import Reporter
from entprop_fast.run.signals import StopSignals

_ROWS = (
    f"rows of the table: any of {', '.join(METHODS)}, with options of their own if wanted, as in "
    "entprop:score=random,k=0.5"
)
_OWN_FLAGS = ("method", "seed", "out")  # here they are several, or mean another folder

_Flags = cli.flag_class(
    "CompareFlags",
    cli.several("methods", str, _ROWS),
    cli.several("seeds", int, "a run of each row with each, 0 1 2 when left out"),
    cli.optional_flag("budget", str, "what is equal for all rows: epochs (the default) or passes"),
    cli.optional_flag("baseline", str, "the row that others are compared with, the first one"),
    cli.optional_flag("jobs", int, "runs at a time, one a core or GPU when left out"),
    cli.optional_flag("out", str, "folder, runs/compare-<dataset>-<arch> when left out"),
    cli.recipe_flag(),
    *(flag for flag in cli.optional_flags(Config) if flag[0] not in _OWN_FLAGS),
    *cli.optional_flags(MethodOptions),
    cli.switch("overwrite", "run everything anew, in place of what the folder holds"),
)

_DESCRIPTION = (
    "Train several methods with several seeds on one data set and compare them. Finished runs are "
    "not repeated, broken ones are resumed. A flag that is not given takes the recipe's value; an "
    "option goes to the methods that have it."
)
_SEEDS = (0, 1, 2)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = cli.again("entprop_fast.compare", args)
    return cli.run_command(lambda signals: _compare(args, signals), again=again)


def _compare(args: Sequence[str] | None, signals: StopSignals) -> None:
    flags = vars(
        cli.parse(_Flags, args, prog="entprop_fast.compare", description=_DESCRIPTION)
    ).copy()
    seeds, budget = flags.pop("seeds") or _SEEDS, flags.pop("budget") or "epochs"
    jobs, overwrite, out = flags.pop("jobs"), flags.pop("overwrite"), flags.pop("out")
    with bad_input():
        rows = variants.parse_all(flags.pop("methods") or ())
        baseline = flags.pop("baseline") or rows[0].name
        if baseline not in (row.name for row in rows):
            raise names.unknown("baseline", baseline, [row.name for row in rows])
        if flags["threads"] is None:
            flags["threads"] = 1
        source, flags = usual.follow_data(flags.pop("recipe"), flags)
        runs = resolve_runs(source, rows, seeds, flags, out=out, budget=budget)
        first = runs[0].config
        devices = places(first.device, jobs, first.threads or 1)
    reporter = Reporter()
    reporter.say(announce.settings(source, first))
    for run in runs[: len(rows)]:
        reporter.say(f"{run.variant}: {announce.method(run.config)}")
    for line in announce.warnings(run.config for run in runs):
        reporter.say(line)
    summaries, failures = conduct(runs, devices, reporter, overwrite=overwrite)
    table = table_of(runs, summaries, failures, baseline)
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
        document(folder, settings, runs, summaries, table)
    reporter.console.print(*tables.terminal_tables(table, baseline), sep="\n")
    reporter.say(results.statement(table, baseline))
    metric = results.compared_metric(table)
    reporter.say(tables.legend(baseline, metric=metric))
    reporter.say(f"corruptions behind RA: {source_of(summaries) or 'none'}")
    for row in table:
        for seed, why in row.failures.items():
            reporter.say(f"{row.name}, seed {seed}, failed: {why}")
    reporter.say(f"compare.md, compare.json, compare.png and every run's folder are in {folder}")
    if failures:
        raise RunFailed(f"{len(failures)} of {len(runs)} runs; see above")


if __name__ == "__main__":
    sys.exit(main())
