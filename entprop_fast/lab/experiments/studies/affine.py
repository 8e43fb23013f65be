"""Study which part of the auxiliary norms matters: their affine parameters or their statistics."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table
from entprop_fast.lab.experiments.studies.runs import Settings, run_grid
from entprop_fast.lab.experiments.studies.variant_scores import (
    draw_scores,
    hscores_in_words,
    score_table,
)
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.methods import EntProp
from entprop_fast.options import options_of

BASELINE = "shared"  # one set of both


def variants() -> dict[str, Settings]:
    """Return EntProp with each choice of what the two halves have of their own."""
    choices = options_of(EntProp.Options)["norms"].choices
    others = [str(one) for one in choices if one != BASELINE]
    return {norms: {"method": "entprop", "norms": norms} for norms in (BASELINE, *others)}


def measure(options: Options, reporter: Reporter) -> Table:
    """Train EntProp with each."""
    return score_table(run_grid(options, variants(), reporter), BASELINE)


def sentence(rows: Sequence[Row]) -> str:
    """Compare Hscore with that of one shared set of norms."""
    return f"With two sets of norms or a part of them, {hscores_in_words(rows, BASELINE)}."


def draw(figure: Figure, table: Table) -> None:
    """Draw Hscore by what is doubled, and against its cost."""
    draw_scores(figure, table, "what the norms have two sets of")


STUDY = Study(
    "affine",
    "Which part of the auxiliary norms matters: affine parameters or statistics?",
    "EntProp with two sets of norms, of affine parameters alone, of statistics alone, against "
    "one shared set",
    measure,
    sentence,
    draw,
)
