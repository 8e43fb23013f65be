"""Write down what the runs of a comparison came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from entprop_fast.lab.experiments.comparison import comparison_tables, method_rows
from entprop_fast.lab.experiments.comparison.comparison_plot import draw_comparison
from entprop_fast.lab.experiments.comparison.method_rows import MethodRow
from entprop_fast.lab.experiments.one_run import Run
from entprop_fast.lab.experiments.runner import Results, source_of
from entprop_fast.lab.files import write_atomically, write_json
from entprop_fast.lab.report.text import markdown

JSON, MARKDOWN, PICTURE = "compare.json", "compare.md", "compare.png"

_T = TypeVar("_T")


def table_of(runs: Sequence[Run], results: Results, baseline: str) -> list[MethodRow]:
    """Make the table's rows, in the order of the runs."""
    return method_rows.method_rows(
        _by_variant(runs, results.records), baseline, _by_variant(runs, results.failures)
    )


def document(
    folder: Path,
    settings: Mapping[str, Any],
    runs: Sequence[Run],
    results: Results,
    table: Sequence[MethodRow],
) -> None:
    """Write ``compare.json``, ``compare.md`` and, once a run has finished, ``compare.png``."""
    baseline, summaries = settings["baseline"], _by_variant(runs, results.records)
    said, source = method_rows.statement(table, baseline), source_of(results.records)
    configs = {run.variant: run.config for run in runs}
    methods = [
        comparison_tables.json_row(row)
        | {
            "method": configs[row.name].method,
            "epochs": configs[row.name].epochs,
            "options": configs[row.name].options,
            "runs": [summaries[row.name][seed] for seed in row.seeds],
        }
        for row in table
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / JSON,
        {**settings, "corruption_source": source, "methods": methods, "statement": said},
    )
    picture = f"![scores and their cost]({PICTURE})" if results.records else ""
    heading = markdown(f"{settings['dataset']}, {settings['arch']}: equal {settings['budget']}")
    written = comparison_tables.markdown_table(table, baseline)
    metric = method_rows.compared_metric(table)
    legend = comparison_tables.legend(baseline, metric=metric, source=source)
    parts = (f"# {heading}", picture, written, markdown(said), markdown(legend))
    page = "\n\n".join(part for part in parts if part)
    write_atomically(folder / MARKDOWN, f"{page}\n".encode())
    if results.records:
        draw_comparison(folder / PICTURE, table, source=source)


def _by_variant(runs: Sequence[Run], values: Mapping[Path, _T]) -> dict[str, dict[int, _T]]:
    """Group by variant what is filed by folder; the seeds in order."""
    found: dict[str, dict[int, _T]] = {run.variant: {} for run in runs}
    for run in runs:
        if run.folder in values:
            found[run.variant][run.seed] = values[run.folder]
    return found
