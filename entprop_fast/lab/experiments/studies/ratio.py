"""Study how large a share k of the batch should be selected."""

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

SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
BASELINE = "k=0.2"


def measure(options: Options, reporter: Reporter) -> Table:
    """Train EntProp with n = 1 at every share."""
    variants = {f"k={k:g}": {"k": k, "n": 1} for k in SHARES}
    return score_table(run_grid(options, variants, reporter), BASELINE)


def sentence(rows: Sequence[Row]) -> str:
    """Compare Hscore with that of k = 0.2, and say what the ends of the sweep cost."""
    return f"{hscores_in_words(rows, BASELINE)}; {costs_in_words(rows)}."


def draw(figure: Figure, table: Table) -> None:
    """Draw Hscore by share, and against its cost."""
    draw_scores(figure, table.rows, "share of the batch")


STUDY = Study(
    "ratio", "How large a share k of the batch should be selected?", measure, sentence, draw
)
