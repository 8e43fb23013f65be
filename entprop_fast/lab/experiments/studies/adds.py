"""Study what EntProp adds to augmentations: each alone, and EntProp over it."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from entprop_fast.lab.experiments.studies.differences import HOW, against_baseline, corrected
from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table, cell, number
from entprop_fast.lab.experiments.studies.runs import Settings, run_grid, source_of
from entprop_fast.lab.experiments.studies.variant_scores import draw_scores, score_rows
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.augment_setting import NONE, appended, moved_options

# What is appended to the recipe's chain.
AUGMENTS = (NONE, "trivialaugment", "augmix", "augmix:jsd=12", "prime")
METHODS = ("vanilla", "entprop")  # the second is compared with the first


def variants_of(augment: str, options: Options) -> dict[str, Settings]:
    """Return the two methods over an augmentation."""
    found = recipe.resolve(options.recipe, **options.overrides)
    chain = found.augment if augment == NONE else appended(found.augment, augment)
    return {
        name_of(method, augment): {"method": method, **moved_options({"augment": chain})}
        for method in METHODS
    }


def name_of(method: str, augment: str) -> str:
    """Return a row's name, as the compare command writes it."""
    return method if augment == NONE else f"{method}@{augment}"


def measure(options: Options, reporter: Reporter) -> Table:
    """Train both methods over each augmentation, for as many epochs."""
    pairs = [variants_of(augment, options) for augment in AUGMENTS]
    records = run_grid(options, {k: v for pair in pairs for k, v in pair.items()}, reporter)
    rows: list[Row] = []
    for pair in pairs:
        rows += score_rows({name: records[name] for name in pair}, next(iter(pair)))
    return Table(corrected(rows), source=source_of(records))


def sentence(rows: Sequence[Row]) -> str:
    """Say where EntProp scores more than the same augmentation alone, and what scores most."""
    best = max(rows, key=lambda row: number(row, "Hscore"))
    return (
        f"Hscore against the same augmentation without EntProp ({HOW}): {against_baseline(rows)}; "
        f"the highest mean is {best['variant']}'s ({cell(best['Hscore'])})."
    )


def draw(figure: Figure, table: Table) -> None:
    """Draw Hscore by method and augmentation, and against its cost."""
    draw_scores(figure, table, "method@augmentation")


STUDY = Study(
    "adds",
    "Does EntProp add to an augmentation?",
    "plain training and EntProp over the recipe's chain and over that with TrivialAugment, "
    "AugMix, AugMix with jsd=12 and PRIME appended, for as many epochs; each pair shares its "
    "augmentation",
    measure,
    sentence,
    draw,
)
