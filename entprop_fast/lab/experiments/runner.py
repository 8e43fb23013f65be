"""Do many runs: skip finished ones, go on with broken ones, collect failures.

A comparison's runs and a study's differ in what they keep of a run; the rest is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from entprop_fast.lab import lease_file
from entprop_fast.lab.corruptions.suites import of_another_generator
from entprop_fast.lab.experiments.one_run import Outcome, Record, Run
from entprop_fast.lab.experiments.run_costs import passes
from entprop_fast.lab.experiments.run_progress import ProgressRows, State
from entprop_fast.lab.experiments.shared_runs import SharedRuns
from entprop_fast.lab.experiments.workers import do_runs
from entprop_fast.lab.report.numbers import number
from entprop_fast.lab.report.progress import Reporter, duration, time_left
from entprop_fast.lab.report.tables import SCORES
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.engine import rehearse
from entprop_fast.lab.training.errors import FolderInUse, Stopped, UsageError, bad_input
from entprop_fast.lab.training.finish import open_suite
from entprop_fast.lab.training.run_folder import RunFolder

Records = dict[Path, Record]  # by run folder


class Results(NamedTuple):
    """Hold the records of finished runs and the errors of failed ones, by run folder."""

    records: Records
    failures: dict[Path, str]


def run_all(
    runs: Sequence[Run],
    devices: Sequence[str],
    reporter: Reporter,
    record_of: Callable[[Run], Record | None],
    *,
    overwrite: bool = False,
) -> Results:
    """Do every run whose folder does not hold its record yet; all of them to `overwrite`.

    Finished runs that were scored on other corrupted images than the rest will be are evaluated
    again, so that no table mixes two sources. Runs that another machine does are left to it, and
    their records are read from their folders: all machines end with the same.

    Args:
        runs: with a folder each.
        devices: of the processes that do them, from `places`; none: they are done in this one.
        reporter: hears of every run that ends.
        record_of: reads a finished run's record from its folder; None: it is not finished.
        overwrite: replace what the folders hold.

    Raises:
        UsageError: settings or data that a run would refuse, or a folder with another run; none
            was started.
        Stopped: a signal came; the running ones have saved their checkpoints.
    """
    if timed := [run.config.time for run in runs if run.config.time is not None]:
        raise UsageError(
            f"time={timed[0]!r}: limits one run, and these are several; stop them by a signal, "
            "which saves, such as that of timeout(1)"
        )
    found = {} if overwrite else {run.folder: record_of(run) for run in runs}
    records = {folder: record for folder, record in found.items() if record is not None}
    stale = _other_images(runs, records, reporter)
    outdated = {folder: records.pop(folder) for folder in stale}
    pending = [run for run in runs if run.folder not in records]
    costs = _costs(pending, reporter)
    _check_folder(pending)
    if overwrite:
        _clear(pending, reporter.say)
    # The dearest first: a long run that starts last would leave the other cores idle.
    pending.sort(key=lambda run: -costs[run.variant])
    results = Results(records, {})
    at_once = min(len(devices) or 1, len(pending))
    reporter.say(f"{len(runs)} runs, {len(records)} finished before; {at_once} at a time")
    if not pending:
        return results
    began, total, done = time.monotonic(), sum(costs[run.variant] for run in pending), 0.0

    def heard(index: int, news: Outcome | State) -> None:
        nonlocal done
        if isinstance(news, State):
            rows.show(index, news)
            return
        rows.end(index)
        run = pending[index]
        if news.held is not None:
            reporter.say(f"{run.name}: left to {news.held}")
            return
        done += costs[run.variant]
        if news.record is not None:
            records[run.folder] = news.record
        else:
            results.failures[run.folder] = news.error or "no reason given"
        left = duration(time_left(time.monotonic() - began, done, total))
        count = f"{len(records) + len(results.failures)}/{len(runs)}"
        reporter.say(f"{count}  {run.name}: {_said(news)}  {left} left")

    try:
        with ProgressRows(reporter, [run.name for run in pending]) as rows:
            do_runs(SharedRuns(pending, record_of, heard, reporter.say, outdated), devices, heard)
    except Stopped as stopped:
        finished = f"{len(records)} of {len(runs)} runs are finished"
        stopped.saved = f"{finished}, those at work saved theirs"
        raise
    for run in pending:  # another machine that was started later may have had more luck
        if run.folder in results.failures and (record := record_of(run)) is not None:
            if record != outdated.get(run.folder):
                records[run.folder] = record
                del results.failures[run.folder]
    return results


def source_of(records: Mapping[Path, Record]) -> str:
    """Return where the corrupted images of all these runs come from; empty for none.

    Raises:
        UsageError: they do not agree.
    """
    folder_of = {record["corruption_source"]: folder for folder, record in records.items()}
    if len(folder_of) > 1:
        seen = "; ".join(f"{folder}: {source or 'none'}" for source, folder in folder_of.items())
        raise UsageError(f"one table needs one set of corrupted images, not several ({seen})")
    return next(iter(folder_of), "")


def corruption_source(config: Config) -> str:
    """Return where the corrupted images that the run is scored on would come from.

    Raises:
        UsageError: data, or an official set, that is missing or broken.
    """
    trainer = rehearse(config, step=False)
    with bad_input():
        suite = open_suite(trainer)
    return "" if suite is None else suite.source


def _other_images(runs: Sequence[Run], records: Records, reporter: Reporter) -> set[Path]:
    """Find the finished runs whose corrupted images are not those that a run would see now.

    Where nothing is left to do and all agree, on images that this version still makes, no data
    set is opened for that.
    """
    sources = {record["corruption_source"] for record in records.values()}
    if len(records) == len(runs) and len(sources) == 1:
        (source,) = sources
        if source is not None and not of_another_generator(source):
            return set()
    config = runs[0].config
    looked_at = "the data" if config.corruptions == "none" else "the corrupted images"
    with reporter.waiting(f"looking at {looked_at}"):
        source = corruption_source(config)
    reporter.say(f"corruptions: {source or 'none'}")
    stale = {folder for folder, one in records.items() if one["corruption_source"] != source}
    if stale:
        reporter.say(f"{len(stale)} finished runs were scored on others: evaluated again")
    return stale


def _costs(pending: Iterable[Run], reporter: Reporter) -> dict[str, float]:
    """Try a step of each variant; its cost, in passes over the training images."""
    costs: dict[str, float] = {}
    for run in pending:
        if run.variant not in costs:
            with reporter.waiting(f"trying a step of {run.variant}"):
                try:
                    costs[run.variant] = passes(run.config)
                except UsageError as error:
                    raise UsageError(f"{error} (in the row {run.variant!r})") from error
    return costs


def _check_folder(pending: Sequence[Run]) -> None:
    """Make sure that the first run's folder can be written, before hours of work."""
    for run in pending:
        try:
            with RunFolder(run.folder).claimed(wait="not"):
                return
        except FolderInUse:  # another machine is at work in it
            continue


def _clear(pending: Sequence[Run], say: Callable[[str], None]) -> None:
    """Remove all before the first: without --overwrite the command then goes on after a stop.

    Raises:
        UsageError: a machine is at work here, and what it has finished would be removed, too.
    """
    for run in pending:
        try:
            if lease_file.look(run.folder) is not None:
                with RunFolder(run.folder).claimed(say):  # a lost machine's is no obstacle
                    pass
        except FolderInUse as other:
            raise UsageError(
                f"--overwrite removes all runs, and {other.host} is at work at one: {run.folder}; "
                "where several machines share the work, give it to the first alone"
            ) from None
    for run in pending:
        folder = RunFolder(run.folder)
        with folder.claimed(wait="not"):
            folder.clear()


def _said(outcome: Outcome) -> str:
    if outcome.record is None:
        return f"failed: {outcome.error}"
    if outcome.elsewhere:
        return "done by another machine"
    scores = (f"{name} {number(outcome.record[key])}" for key, name in SCORES.items())
    return f"{'  '.join(scores)}  {outcome.record['seconds']:.1f} s"
