"""Study which part of EntProp brings what: the paper's ablation."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table
from entprop_fast.lab.experiments.studies.runs import Settings, run_grid
from entprop_fast.lab.experiments.studies.sweep import draw_scores, hscores_in_words, score_table
from entprop_fast.lab.report.progress import Reporter

BASELINE = "vanilla"
# Without the free step the selected rows go through the auxiliary norms as they are.
VARIANTS: dict[str, Settings] = {
    BASELINE: {"method": "vanilla"},
    "selection only": {"method": "entprop", "mixup": 0.0, "eps": 0.0, "alpha": 0.0},
    "+ mixing": {"method": "entprop", "eps": 0.0, "alpha": 0.0},
    "+ free step": {"method": "entprop", "mixup": 0.0},
    "all": {"method": "entprop"},
}


def measure(options: Options, reporter: Reporter) -> Table:
    """Train every combination."""
    return score_table(run_grid(options, VARIANTS, reporter), BASELINE)


def sentence(rows: Sequence[Row]) -> str:
    """Compare the Hscore of each combination with plain training's."""
    return f"{hscores_in_words(rows, BASELINE)}."


def draw(figure: Figure, table: Table) -> None:
    """Draw Hscore by combination, and against its cost."""
    draw_scores(figure, table.rows, "components")


STUDY = Study("components", "Which part of EntProp brings what to Hscore?", measure, sentence, draw)
