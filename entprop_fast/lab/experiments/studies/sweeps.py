"""Sweep settings of EntProp: how large a share, how many passes, which parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table
from entprop_fast.lab.experiments.studies.runs import Settings, run_grid
from entprop_fast.lab.experiments.studies.variant_scores import (
    costs_in_words,
    draw_scores,
    hscores_in_words,
    score_table,
)
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training import recipe

RATIOS: dict[str, Settings] = {f"k={k:g}": {"k": k, "n": 1} for k in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)}
COUNTS = (1, 2, 3, 4, 5)
SHARE = 0.6  # of the sweep over passes
# Without the free step the selected rows go through the auxiliary norms as they are.
COMPONENTS: dict[str, Settings] = {
    "vanilla": {"method": "vanilla"},
    "selection only": {"method": "entprop", "mixup": 0.0, "eps": 0.0, "alpha": 0.0},
    "+ mixing": {"method": "entprop", "eps": 0.0, "alpha": 0.0},
    "+ free step": {"method": "entprop", "mixup": 0.0},
    "all": {"method": "entprop"},
}


def passes(options: Options) -> dict[str, Settings]:
    """Reach the recipe's radius in n steps of radius / n, for every n.

    A step as long as the radius would find nothing more to do after the first.
    """
    found = recipe.resolve(options.recipe, method="entprop", **options.overrides)
    eps = found.options.get("eps", 1 / 255)
    return {
        f"n={n}": {"method": "entprop", "k": SHARE, "n": n, "eps": eps, "alpha": float(eps) / n}
        for n in COUNTS
    }


def _sweep(
    name: str,
    question: str,
    compared: str,
    variants: Callable[[Options], Mapping[str, Settings]],
    baseline: str,
    sentence: Callable[[Sequence[Row]], str],
    xlabel: str,
) -> Study:
    def measure(options: Options, reporter: Reporter) -> Table:
        return score_table(run_grid(options, variants(options), reporter), baseline)

    def draw(figure: Figure, table: Table) -> None:
        draw_scores(figure, table, xlabel)

    return Study(name, question, compared, measure, sentence, draw)


RATIO = _sweep(
    "ratio",
    "How large a share k of the batch should be selected?",
    "Hscore and cost for six values of k, at n = 1",
    lambda _: RATIOS,
    "k=0.2",
    lambda rows: f"{hscores_in_words(rows, 'k=0.2')}; {costs_in_words(rows)}.",
    "share of the batch",
)
STEPS = _sweep(
    "steps",
    "How many auxiliary passes n are worth their cost?",
    "Hscore and cost for n = 1 to 5, at k = 0.6, the same radius in n steps",
    passes,
    "n=1",
    lambda rows: f"At k={SHARE:g}, {hscores_in_words(rows, 'n=1')}; {costs_in_words(rows)}.",
    "auxiliary passes",
)
PARTS = _sweep(
    "components",
    "Which part of EntProp brings what to Hscore?",
    "selection only, + mixing, + free step, all: the paper's ablation",
    lambda _: COMPONENTS,
    "vanilla",
    lambda rows: f"{hscores_in_words(rows, 'vanilla')}.",
    "components",
)
