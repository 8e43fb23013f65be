"""Study from how many epochs and training images on EntProp is ahead of plain training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from matplotlib.figure import Figure

from entprop_fast.lab.experiments.studies.differences import HOW, corrected, verdict, word
from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table, number
from entprop_fast.lab.experiments.studies.runs import Settings, run_grid, source_of
from entprop_fast.lab.experiments.studies.size import sizes_of
from entprop_fast.lab.experiments.studies.variant_scores import error_bars, score_rows, ticks_at
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training import recipe

BASELINE, OURS = "vanilla", "entprop"
SHARES = (0.25, 0.5, 1.0, 2.0)  # of the study's epochs
MULTIPLES = (0.5, 1.0, 2.0)  # of its training images


def measure(options: Options, reporter: Reporter) -> Table:
    """Train both methods with every number of epochs and of images."""
    config = recipe.resolve(options.recipe, epochs=options.epochs, **options.overrides)
    lengths = sorted({max(1, round(share * config.epochs)) for share in SHARES})
    places = [(size, epochs) for size in sizes_of(options, MULTIPLES) for epochs in lengths]
    variants: dict[str, Settings] = {
        _name(method, place): {
            "method": method,
            "train_size": place[0],
            "batch_size": min(config.batch_size, place[0]),
            "epochs": place[1],
        }
        for place in places
        for method in (BASELINE, OURS)
    }
    records = run_grid(options, variants, reporter)
    rows: list[Row] = []
    for place in places:
        found = {method: records[_name(method, place)] for method in (BASELINE, OURS)}
        size, epochs = place
        rows += [{"images": size, "epochs": epochs, **row} for row in score_rows(found, BASELINE)]
    return Table(corrected(rows), source=source_of(records))


def _name(method: str, place: tuple[int, int]) -> str:
    size, epochs = place
    return f"{method}, {size} images, {epochs} epochs"


def sentence(rows: Sequence[Row]) -> str:
    """Say for each number of images how EntProp stands by epochs, and where it overtakes."""
    parts = []
    for size, group in groupby(rows, key=lambda row: row["images"]):
        ours = [row for row in group if row["difference"] is not None]
        by_epochs = ", ".join(f"at {row['epochs']} epochs {verdict(row)}" for row in ours)
        parts.append(f"with {size} images {by_epochs}: {_overtakes(ours)}")
    return f"Hscore of {OURS} against {BASELINE} ({HOW}): {'; '.join(parts)}."


def _overtakes(rows: Sequence[Row]) -> str:
    """Say from which epochs on every row is clearly above the baseline; `rows` in their order."""
    ahead: Row | None = None
    for row in reversed(rows):
        if word(row) != "higher":
            break
        ahead = row
    if ahead is None:
        return "it overtakes nowhere in this table"
    if ahead is rows[0]:
        return f"it is ahead everywhere in this table, from {ahead['epochs']} epochs on"
    return f"it overtakes at {ahead['epochs']} epochs"


def draw(figure: Figure, table: Table) -> None:
    """Draw Hscore and EntProp's lead by epochs, a line for each number of images."""
    left, right = figure.subplots(1, 2)
    for index, (size, group) in enumerate(groupby(table.rows, key=lambda row: row["images"])):
        found = list(group)
        for method, style in ((BASELINE, "o:"), (OURS, "o-")):
            rows = [row for row in found if row["variant"] == method]
            epochs = [number(row, "epochs") for row in rows]
            hscores = [number(row, "Hscore") for row in rows]
            about = {"color": f"C{index}", "label": f"{method}, {size} images", "fmt": style}
            left.errorbar(epochs, hscores, yerr=error_bars(rows), capsize=4, **about)
        ours = [row for row in found if row["difference"] is not None]
        leads = [number(row, "difference") for row in ours]
        right.plot([number(row, "epochs") for row in ours], leads, "o-", label=f"{size} images")
    left.set(ylabel="Hscore (%), ± deviation over seeds")
    right.set(ylabel=f"Hscore of {OURS} minus {BASELINE}'s (points)")
    right.axhline(0, color="0.5", linewidth=0.8)
    lengths = list(dict.fromkeys(number(row, "epochs") for row in table.rows))
    ticks_at((left, right), lengths, "epochs")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)


STUDY = Study(
    "budget",
    "From how many epochs and training images on is EntProp ahead of plain training?",
    "Hscore of plain training and EntProp with a quarter, half, all and twice the epochs, each "
    "with half, all and twice --train-size; the sentence says where EntProp overtakes",
    measure,
    sentence,
    draw,
)
