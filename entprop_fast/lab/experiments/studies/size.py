"""Study what the methods gain with few and with many training images."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import groupby

from matplotlib.figure import Figure

from entprop_fast.lab.data import load
from entprop_fast.lab.experiments.studies.differences import HOW, against_baseline, corrected
from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table, cell, number
from entprop_fast.lab.experiments.studies.runs import Settings, run_grid, source_of
from entprop_fast.lab.experiments.studies.variant_scores import (
    column,
    error_bars,
    score_rows,
    ticks_at,
)
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.errors import UsageError, bad_input
from entprop_fast.methods import METHODS, method_options

BASELINE = "vanilla"
# Without those that compare views of each row, which not every augmentation makes.
_ONE_VIEW = [method for method in METHODS if not method_options(method).get("jsd")]
COMPARED = (BASELINE, *(method for method in _ONE_VIEW if method != BASELINE))
MULTIPLES = (0.5, 1.0, 2.0)  # of the study's training images


def measure(options: Options, reporter: Reporter) -> Table:
    """Train every method at every size."""
    sizes = sizes_of(options, MULTIPLES)
    config = recipe.resolve(options.recipe, epochs=options.epochs, **options.overrides)
    batch = config.batch_size
    # Free training's replays are passes too: it gets the epochs that plain training's cost.
    free = recipe.resolve(options.recipe, method="free_at", **options.overrides)
    replays = int(free.options["replays"])
    epochs = {"free_at": max(1, round(config.epochs / replays))}
    variants: dict[str, Settings] = {
        f"{method}/{size}": {
            "method": method,
            "train_size": size,
            "batch_size": min(batch, size),
            "epochs": epochs.get(method, config.epochs),
        }
        for size in sizes
        for method in COMPARED
    }
    records = run_grid(options, variants, reporter)
    rows: list[Row] = []
    for size in sizes:
        found = {method: records[f"{method}/{size}"] for method in COMPARED}
        for row in score_rows(found, BASELINE):
            gap = statistics.fmean(column(found[str(row["variant"])], "gap"))
            rows.append({"images": size, **row, "gap": gap})
    return Table(corrected(rows), source=source_of(records))


def sizes_of(options: Options, multiples: Sequence[float]) -> list[int]:
    """Return so many times the study's training images, the largest multiple last.

    Raises:
        UsageError: the data set has fewer.
    """
    with bad_input():
        config = recipe.resolve(options.recipe, **options.overrides)
        there = load(config.dataset, data_dir=options.data_dir).num_train
    middle = options.train_size or there // 2
    sizes = [round(multiple * middle) for multiple in multiples]
    if sizes[-1] > there:
        raise UsageError(
            f"--train-size {middle}: this study trains with {multiples[-1]:g} times as many images "
            f"too, and {config.dataset} has {there}"
        )
    return sizes


def sentence(rows: Sequence[Row]) -> str:
    """Compare Hscore with plain training's at each size, and give the train-test gaps."""
    parts = []
    for size, group in groupby(rows, key=lambda row: row["images"]):
        found = list(group)
        gaps = ", ".join(f"{row['variant']} {cell(row['gap'])}" for row in found)
        parts.append(f"with {size} images {against_baseline(found)} (train-test gap: {gaps})")
    return f"Hscore against {BASELINE} ({HOW}): {'; '.join(parts)}."


def draw(figure: Figure, table: Table) -> None:
    """Draw Hscore and train-test gap by size, a line for each method."""
    left, right = figure.subplots(1, 2)
    for index, method in enumerate(COMPARED):
        rows = [row for row in table.rows if row["variant"] == method]
        # Side by side on the logarithmic axis, so that no bar hides another.
        shift = 1.02 ** (index - (len(COMPARED) - 1) / 2)
        sizes = [shift * number(row, "images") for row in rows]
        hscores = [number(row, "Hscore") for row in rows]
        left.errorbar(sizes, hscores, yerr=error_bars(rows), fmt="o-", capsize=4, label=method)
        right.plot(sizes, [number(row, "gap") for row in rows], "o-", label=method)
    left.set(ylabel="Hscore (%), ± deviation over seeds")
    right.set(ylabel="training accuracy minus SA (points)")
    images = list(dict.fromkeys(number(row, "images") for row in table.rows))
    ticks_at((left, right), images, "training images")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=5)


STUDY = Study(
    "size",
    "What do the methods gain with few and with many training images?",
    "Hscore and train-test gap of every method with half, all and twice --train-size; free "
    "training gets the epochs that plain training's passes pay for",
    measure,
    sentence,
    draw,
)
