"""Doing the runs of a comparison that are left to do, and writing down what all came to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from entprop_fast.checkpoint import write_atomically
from entprop_fast.run.comparison import plan, results, tables
from entprop_fast.run.comparison.plan import Key, Run
from entprop_fast.run.comparison.plots import draw_comparison
from entprop_fast.run.comparison.results import MethodRow
from entprop_fast.run.comparison.workers import Job, Outcome, run_all
from entprop_fast.run.config import Config
from entprop_fast.run.errors import UsageError
from entprop_fast.run.progress import Reporter
from entprop_fast.run.run_folder import RunFolder, write_json

JSON, MARKDOWN, PICTURE = "compare.json", "compare.md", "compare.png"

Summaries = dict[Key, dict[str, Any]]
Failures = dict[Key, str]

_T = TypeVar("_T")


def conduct(
    runs: Sequence[Run], devices: Sequence[str], reporter: Reporter, *, overwrite: bool = False
) -> tuple[Summaries, Failures]:
    """Do every run whose folder does not hold its summary yet; all of them to `overwrite`.

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
    pending = [run for run in runs if run.key not in summaries]
    representative = {run.variant: run.config for run in reversed(pending)}
    costs = {name: _passes(name, config) for name, config in representative.items()}
    _check_folder(pending)
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
        reporter.say(
            f"{count}  {run.variant}, seed {run.seed}: {_said(outcome)}  {left:.0f} s left"
        )

    if pending:
        run_all([Job(run.config, overwrite) for run in pending], devices, done)
    return summaries, failures


def table_of(
    runs: Sequence[Run], summaries: Summaries, failures: Failures, baseline: str
) -> list[MethodRow]:
    """The table's rows, in the order of the runs."""
    variants = dict.fromkeys(run.variant for run in runs)
    return results.method_rows(
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
    said = results.statement(table, baseline)
    configs = {run.variant: run.config for run in runs}
    methods = [
        tables.json_row(row)
        | {
            "method": configs[row.name].method,
            "epochs": configs[row.name].epochs,
            "options": configs[row.name].options,
            "runs": [summaries[row.name, seed] for seed in row.seeds],
        }
        for row in table
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JSON, {**settings, "methods": methods, "statement": said})
    picture = f"![SA against RA, Hscore against cost]({PICTURE})" if summaries else ""
    heading = f"# {settings['dataset']}, {settings['arch']}: equal {settings['budget']}"
    written = tables.markdown_table(table, baseline)
    parts = (heading, picture, written, said, tables.legend(baseline))
    text = "\n\n".join(part for part in parts if part)
    write_atomically(folder / MARKDOWN, f"{text}\n".encode())
    if summaries:
        draw_comparison(folder / PICTURE, table)


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


def _said(outcome: Outcome) -> str:
    if outcome.summary is None:
        return f"failed: {outcome.error}"
    scores = (f"{name} {outcome.summary[key]:.1f}" for key, name in tables.HEADINGS.items())
    return f"{'  '.join(scores)}  {outcome.summary['seconds']:.1f} s"


def _seeds(variant: str, values: Mapping[Key, _T]) -> dict[int, _T]:
    return {seed: value for (name, seed), value in values.items() if name == variant}
