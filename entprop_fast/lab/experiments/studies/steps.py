"""Study how many auxiliary passes n are worth their cost."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table
from entprop_fast.lab.experiments.studies.runs import run_grid
from entprop_fast.lab.experiments.studies.sweep import (
    costs_in_words,
    draw_scores,
    hscores_in_words,
    score_table,
)
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training import recipe

COUNTS = (1, 2, 3, 4, 5)
SHARE = 0.6
BASELINE = "n=1"


def measure(options: Options, reporter: Reporter) -> Table:
    """Train EntProp with k = 0.6 at every n: the recipe's radius, in steps of radius / n.

    A step as long as the radius would find nothing more to do after the first.
    """
    eps = recipe.resolve(options.recipe, method="entprop", **options.overrides).options.get(
        "eps", 1 / 255
    )
    variants = {
        f"n={n}": {"method": "entprop", "k": SHARE, "n": n, "eps": eps, "alpha": float(eps) / n}
        for n in COUNTS
    }
    return score_table(run_grid(options, variants, reporter), BASELINE)


def sentence(rows: Sequence[Row]) -> str:
    """Compare Hscore with one pass's, and say what the ends of the sweep cost."""
    return f"At k={SHARE:g}, {hscores_in_words(rows, BASELINE)}; {costs_in_words(rows)}."


def draw(figure: Figure, table: Table) -> None:
    """Draw Hscore by n, and against its cost."""
    draw_scores(figure, table.rows, "auxiliary passes")


STUDY = Study("steps", "How many auxiliary passes n are worth their cost?", measure, sentence, draw)
