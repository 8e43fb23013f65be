"""Make a row of each method from its finished runs, and a statement from the rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from entprop_fast.lab.experiments.statistics import (
    CORRECTION,
    SIGNIFICANCE,
    TEST,
    UNCLEAR,
    Difference,
    Spread,
    corrected,
    paired,
    spread,
)
from entprop_fast.lab.report.numbers import difference, number
from entprop_fast.lab.report.tables import SCORES

METRICS = tuple(SCORES)
SHIFT = "shift "  # and the name of a further test set that comes with the data set: a metric, too

Summary = Mapping[str, Any]  # what a run's summary.json holds


@dataclass(frozen=True)
class MethodRow:
    """Hold one row of the table.

    Attributes:
        name: the method, with its options.
        seeds: of the runs that finished.
        scores: SA, RA and Hscore in percent, and the accuracy on further test sets; empty when no
            run finished, without RA and Hscore where no corruption was tested.
        differences: to the baseline, by metric; empty for the baseline itself.
        cost: passes over the training images, mean of the runs.
        seconds: of a run, training and evaluation.
        failures: seed to what went wrong.
    """

    name: str
    seeds: tuple[int, ...]
    scores: dict[str, Spread]
    differences: dict[str, Difference]
    cost: Spread | None
    seconds: Spread | None
    failures: Mapping[int, str] = field(default_factory=dict)


def method_rows(
    summaries: Mapping[str, Mapping[int, Summary]],
    baseline: str,
    failures: Mapping[str, Mapping[int, str]] | None = None,
) -> list[MethodRow]:
    """Make a row for each name of `summaries`, which holds the finished runs by seed.

    Holm's correction is over the rows, separately for each metric.
    """
    summaries = {
        name: {seed: _with_shifts(one) for seed, one in runs.items()}
        for name, runs in summaries.items()
    }
    metrics = [*METRICS, *shifts_of(one for runs in summaries.values() for one in runs.values())]
    differences: dict[str, dict[str, Difference]] = {name: {} for name in summaries}
    for metric in metrics:
        values = {name: _values(runs, metric) for name, runs in summaries.items()}
        found = {name: paired(values[name], values[baseline]) for name in values}
        compared = {n: one for n, one in found.items() if one is not None and n != baseline}
        for name, one in corrected(compared).items():
            differences[name][metric] = one
    rows = []
    for name, runs in summaries.items():
        spreads = {
            column: spread(list(known.values()))
            for column in (*metrics, "cost", "seconds")
            if (known := _values(runs, column))
        }
        cost, seconds = spreads.pop("cost", None), spreads.pop("seconds", None)
        failed = (failures or {}).get(name, {})
        seeds = tuple(sorted(runs))
        rows.append(MethodRow(name, seeds, spreads, differences[name], cost, seconds, failed))
    return rows


def shifts_of(scores: Iterable[Mapping[str, Any]]) -> list[str]:
    """List the metrics of further test sets that any of the scores has."""
    return list(dict.fromkeys(name for one in scores for name in one if name.startswith(SHIFT)))


def compared_metric(rows: Sequence[MethodRow]) -> str:
    """Return what the rows are compared by: Hscore, or SA where no corruption was tested."""
    scored = [row for row in rows if row.scores]
    return "sa" if scored and not any("hscore" in row.scores for row in scored) else "hscore"


def statement(rows: Sequence[MethodRow], baseline: str) -> str:
    """Say what the table supports, by Hscore or, without corruptions, by SA."""
    scored = [row for row in rows if row.scores]
    if not scored:
        return "No run finished."
    metric = compared_metric(rows)
    best = max(scored, key=lambda row: row.scores[metric].mean)
    highest = number(best.scores[metric].mean)
    said = [f"Highest mean {SCORES[metric]}: {best.name}, {highest} %."]
    said += against(rows, baseline)
    if failed := sum(len(row.failures) for row in rows):
        said.append(f"Runs that failed and are left out: {failed}.")
    return " ".join(said)


def against(rows: Sequence[MethodRow], baseline: str) -> list[str]:
    """Say which rows are higher than the baseline, which lower and which neither."""
    said, metric = [], compared_metric(rows)
    compared = {row.name: row.differences[metric] for row in rows if metric in row.differences}
    if tested := {name: one for name, one in compared.items() if one.corrected_p is not None}:
        groups: dict[str, list[str]] = {"higher": [], "lower": [], UNCLEAR: []}
        for name, one in tested.items():
            groups[one.verdict].append(f"{name} ({difference(one.mean)})")
        listed = "; ".join(f"{word}: {', '.join(who)}" for word, who in groups.items() if who)
        said.append(f"Against {baseline} ({TEST}, {CORRECTION} p < {SIGNIFICANCE:g}), {listed}.")
    if untested := [name for name in compared if name not in tested]:
        said.append(f"Too few seeds, or no spread, for a test: {', '.join(untested)}.")
    if partial := [f"{name} ({one.left_out})" for name, one in compared.items() if one.left_out]:
        said.append(f"Seeds without a partner, left out of the differences: {', '.join(partial)}.")
    return said


def _with_shifts(summary: Summary) -> Summary:
    found = summary.get("shifts") or {}  # an earlier version's has none
    return {**summary, **{f"{SHIFT}{name}": one["accuracy"] for name, one in found.items()}}


def _values(runs: Mapping[int, Summary], name: str) -> dict[int, float]:
    """Keep the values that are numbers: a JSON null, or a NaN, is none."""
    values = {
        seed: summary.get(name) if name.startswith(SHIFT) else summary[name]
        for seed, summary in runs.items()
    }
    return {
        seed: float(value)
        for seed, value in values.items()
        if value is not None and math.isfinite(value)
    }
