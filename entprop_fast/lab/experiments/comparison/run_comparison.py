"""Doing the runs of a comparison that are left to do, and writing down what all came to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from entprop_fast.lab.corruptions.suites import of_another_generator
from entprop_fast.lab.experiments.comparison import comparison_tables, method_rows, plan
from entprop_fast.lab.experiments.comparison.comparison_plot import draw_comparison
from entprop_fast.lab.experiments.comparison.method_rows import MethodRow
from entprop_fast.lab.experiments.comparison.plan import Key, Run
from entprop_fast.lab.experiments.watching import Watch
from entprop_fast.lab.experiments.workers import Outcome, run_all
from entprop_fast.lab.files import write_atomically, write_json
from entprop_fast.lab.report.progress import Reporter, duration
from entprop_fast.lab.report.text import markdown
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.errors import Stopped, UsageError
from entprop_fast.lab.training.run_folder import RunFolder

JSON, MARKDOWN, PICTURE = "compare.json", "compare.md", "compare.png"

Summaries = dict[Key, dict[str, Any]]
Failures = dict[Key, str]

_T = TypeVar("_T")


def conduct(
    runs: Sequence[Run], devices: Sequence[str], reporter: Reporter, *, overwrite: bool = False
) -> tuple[Summaries, Failures]:
    """Do every run whose folder does not hold its summary yet; all of them to `overwrite`.

    Finished runs that were scored on other corrupted images than the rest will be are evaluated
    again, so that no table mixes two sources.

    Args:
        runs: from `resolve_runs`.
        devices: of the processes that do them, from `places`.
        reporter: hears of every run that ends.
        overwrite: replace what the folders hold.

    Returns:
        The summaries of the runs that finished, and the errors of those that failed.

    Raises:
        UsageError: settings or data that a run would refuse, or a folder with another run; none
            was started.
        Stopped: a signal came; the running ones have saved their checkpoints.
    """
    found = {} if overwrite else {run.key: plan.finished_summary(run) for run in runs}
    summaries = {key: summary for key, summary in found.items() if summary is not None}
    if stale := _other_images(runs, summaries, reporter):
        summaries = {key: one for key, one in summaries.items() if key not in stale}
    pending = [run for run in runs if run.key not in summaries]
    representative = {run.variant: run.config for run in reversed(pending)}
    costs = {}
    for name, config in representative.items():
        with reporter.waiting(f"trying a step of {name}"):
            costs[name] = _passes(name, config)
    _check_folder(pending)
    if overwrite:
        _clear(pending)
    # The dearest first: a long run that starts last would leave the other cores idle.
    pending.sort(key=lambda run: -costs[run.variant])
    failures: Failures = {}
    at_once = min(len(devices), len(pending))
    reporter.say(f"{len(runs)} runs, {len(summaries)} finished before; {at_once} at a time")
    started, all_passes = time.monotonic(), sum(costs[run.variant] for run in pending)
    passes_done = 0.0

    def done(index: int, outcome: Outcome) -> None:
        nonlocal passes_done
        run = pending[index]
        passes_done += costs[run.variant]
        if outcome.summary is not None:
            summaries[run.key] = outcome.summary
        else:
            failures[run.key] = outcome.error or "no reason given"
        left = (all_passes / passes_done - 1) * (time.monotonic() - started)
        count = f"{len(summaries) + len(failures)}/{len(runs)}"
        reporter.say(f"{count}  {_called(run)}: {_said(outcome)}  {duration(left)} left")

    if pending:
        try:
            with Watch(reporter, [_called(run) for run in pending], done) as watch:
                run_all([run.config for run in pending], devices, watch)
        except Stopped as stopped:
            stopped.saved = (
                f"{len(summaries)} of {len(runs)} runs are finished, those at work saved theirs"
            )
            raise
    return summaries, failures


def _other_images(runs: Sequence[Run], summaries: Summaries, reporter: Reporter) -> set[Key]:
    """The finished runs whose corrupted images are not those that a run would see now.

    Where nothing is left to do and all agree, on images that this version still makes, no data
    set is opened for that.
    """
    sources = {summary["corruption_source"] for summary in summaries.values()}
    if len(summaries) == len(runs) and len(sources) == 1:
        (source,) = sources
        if source is not None and not of_another_generator(source):
            return set()
    with reporter.waiting("looking at the corrupted images"):
        source = plan.corruption_source(runs[0].config)
    reporter.say(f"corruptions: {source or 'none'}")
    stale = {key for key, one in summaries.items() if one["corruption_source"] != source}
    if stale:
        reporter.say(f"{len(stale)} finished runs were scored on others: evaluated again")
    return stale


def source_of(summaries: Summaries) -> str:
    """Where the corrupted images of all these runs come from; empty for none.

    Raises:
        UsageError: they do not agree.
    """
    of_source: dict[str, Key] = {}
    for key, summary in summaries.items():
        of_source.setdefault(summary["corruption_source"], key)
    if len(of_source) > 1:
        seen = "; ".join(f"{v}, seed {s}: {one or 'none'}" for one, (v, s) in of_source.items())
        raise UsageError(f"one table needs one set of corrupted images, not several ({seen})")
    return next(iter(of_source), "")


def table_of(
    runs: Sequence[Run], summaries: Summaries, failures: Failures, baseline: str
) -> list[MethodRow]:
    """The table's rows, in the order of the runs."""
    variants = dict.fromkeys(run.variant for run in runs)
    return method_rows.method_rows(
        {name: _seeds(name, summaries) for name in variants},
        baseline,
        {name: _seeds(name, failures) for name in variants},
    )


def document(
    folder: Path,
    settings: Mapping[str, Any],
    runs: Sequence[Run],
    summaries: Summaries,
    table: Sequence[MethodRow],
) -> None:
    """Write ``compare.json``, ``compare.md`` and, once a run has finished, ``compare.png``."""
    baseline = settings["baseline"]
    said, source = method_rows.statement(table, baseline), source_of(summaries)
    configs = {run.variant: run.config for run in runs}
    methods = [
        comparison_tables.json_row(row)
        | {
            "method": configs[row.name].method,
            "epochs": configs[row.name].epochs,
            "options": configs[row.name].options,
            "runs": [summaries[row.name, seed] for seed in row.seeds],
        }
        for row in table
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / JSON,
        {**settings, "corruption_source": source, "methods": methods, "statement": said},
    )
    picture = f"![scores and their cost]({PICTURE})" if summaries else ""
    heading = markdown(f"{settings['dataset']}, {settings['arch']}: equal {settings['budget']}")
    written = comparison_tables.markdown_table(table, baseline)
    metric = method_rows.compared_metric(table)
    legend = comparison_tables.legend(baseline, metric=metric, source=source)
    parts = (f"# {heading}", picture, written, markdown(said), markdown(legend))
    page = "\n\n".join(part for part in parts if part)
    write_atomically(folder / MARKDOWN, f"{page}\n".encode())
    if summaries:
        draw_comparison(folder / PICTURE, table, source=source)


def _passes(variant: str, config: Config) -> float:
    try:
        return plan.passes(config)
    except UsageError as error:
        raise UsageError(f"{error} (in the row {variant!r})") from error


def _check_folder(pending: Sequence[Run]) -> None:
    """Make sure that the first run's folder can be written, before hours of work."""
    for run in pending[:1]:
        folder = RunFolder(run.config.folder)
        folder.claim()
        folder.release()


def _called(run: Run) -> str:
    return f"{run.variant}, seed {run.seed}"


def _clear(pending: Sequence[Run]) -> None:
    """Remove all before the first: without --overwrite the command then goes on after a stop."""
    for run in pending:
        folder = RunFolder(run.config.folder)
        folder.claim()
        folder.clear()
        folder.release()


def _said(outcome: Outcome) -> str:
    if outcome.summary is None:
        return f"failed: {outcome.error}"
    scores = (
        f"{name} {comparison_tables.percent(outcome.summary[key])}"
        for key, name in method_rows.HEADINGS.items()
    )
    return f"{'  '.join(scores)}  {outcome.summary['seconds']:.1f} s"


def _seeds(variant: str, values: Mapping[Key, _T]) -> dict[int, _T]:
    return {seed: value for (name, seed), value in values.items() if name == variant}
