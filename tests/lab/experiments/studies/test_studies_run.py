"""Every study from its runs to its result, on digits; runs are shared."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import pytest
from matplotlib.figure import Figure

from entprop_fast import reference
from entprop_fast.lab.experiments.studies import STUDIES, Options
from entprop_fast.lab.experiments.studies.form import Row, Table, number
from entprop_fast.lab.experiments.studies.variant_scores import score_rows
from entprop_fast.methods import METHODS, EntProp
from entprop_fast.options import options_of

from .conftest import KINDS, records

PANELS = {"entropy": 1, "bias": 1, "norms": 6} | dict.fromkeys(
    (
        "adds",
        "affine",
        "budget",
        "ratio",
        "steps",
        "components",
        "transforms",
        "score",
        "size",
        "ood",
    ),
    2,
)


def ratio(rows: list[Row]) -> None:
    costs = [number(row, "cost") for row in rows]
    assert costs == sorted(costs) and costs[-1] > costs[0]


def scores(rows: list[Row]) -> None:
    assert [(row["arch"], row["variant"]) for row in rows] == [
        ("wrn10_0.5", score) for score in reference.SCORES
    ]
    overlaps = {row["variant"]: number(row, "overlap") for row in rows}
    assert overlaps["entropy"] == 1.0 and all(0 <= one <= 1 for one in overlaps.values())
    assert overlaps["random"] < 0.5 < overlaps["gini"]  # gini ranks two classes as entropy does


def sizes(rows: list[Row]) -> None:
    """Every method is compared with plain training."""
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row["images"])]
    assert len(groups) == 3
    for found in groups:
        assert found[0]["variant"] == "vanilla" and found[0]["difference"] is None
        assert {row["variant"] for row in found} == METHODS.keys() - {"noisymix"}  # three views
        assert len(found) == len(METHODS) - 1


def entropies(rows: list[Row]) -> None:
    """Selected rows are those of higher entropy."""
    found = {str(row["variant"]): row for row in rows}
    for name in ("at 10%", "at 50%", "at 100%", "whole run"):
        assert number(found["selected"], name) > number(found["unselected"], name) > 0


def norms(rows: list[Row]) -> None:
    layers = [row["layer"] for row in rows if row["measure"] == "separability"]
    assert layers == ["conv1", "layer1", "layer2", "layer3", "bn", "avgpool"]
    assert len([row for row in rows if row["measure"] == "drift of means"]) == 7


def ood(rows: list[Row]) -> None:
    found = {str(row["variant"]): row for row in rows}
    assert len(found) == 5 + len(KINDS) and found["nearer to shifted"]["AUROC shifted"] is None
    for kind in KINDS:
        row = found[f"to {kind}"]
        assert row["AUROC high"] is None
        assert all(0 < number(row, f"distance {group}") < 10 for group in ("high", "random"))
    # max-softmax orders nearly as entropy does, and random rows are as good as the rest
    assert number(found["max-softmax"], "AUROC high") > 90
    assert 35 < number(found["max-softmax"], "AUROC random") < 65


def adds(rows: list[Row]) -> None:
    assert [row["variant"] for row in rows] == [
        *("vanilla", "entprop", "vanilla@augmix:jsd=12", "entprop@augmix:jsd=12")
    ]
    costs = [number(row, "cost") for row in rows]
    assert costs[2] == 3 * costs[0] and costs[3] - costs[2] == costs[1] - costs[0]  # three views
    assert [row["difference"] is None for row in rows] == [True, False, True, False]


def affine(rows: list[Row]) -> None:
    choices = options_of(EntProp.Options)["norms"].choices
    assert {row["variant"] for row in rows} == set(choices) and rows[0]["variant"] == "shared"


def budget(rows: list[Row]) -> None:
    places = [(row["images"], row["epochs"]) for row in rows if row["variant"] == "entprop"]
    assert places == [(size, epochs) for size in (32, 64) for epochs in (1, 2)]
    assert len(rows) == 2 * len(places)


CHECKS = {
    **{"ratio": ratio, "steps": ratio, "score": scores, "size": sizes},
    **{"entropy": entropies, "norms": norms, "ood": ood},
    **{"adds": adds, "affine": affine, "budget": budget},
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs(name: str, shared: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entprop_fast.lab.experiments.studies.budget.MULTIPLES", (0.5, 1.0))
    monkeypatch.setattr("entprop_fast.lab.experiments.studies.budget.SHARES", (0.5, 1.0))
    few = ("none", "augmix:jsd=12")
    monkeypatch.setattr("entprop_fast.lab.experiments.studies.adds.AUGMENTS", few)
    options = replace(shared, archs=("wrn10_0.5",)) if name == "score" else shared
    result = STUDIES[name].run(options)
    assert result.sentence == STUDIES[name].sentence(result.rows)
    assert "single seed has no interval" in result.sentence or name in ("norms", "ood")
    assert all(0 < number(row, "Hscore") < 100 for row in result.rows if "Hscore" in row)
    assert len(result.figure.axes) == PANELS[name]
    if name in CHECKS:
        CHECKS[name](result.rows)


def test_the_score_study_draws_every_architecture() -> None:
    rows = [
        {"arch": arch, **row, "overlap": 0.5}
        for arch in ("one", "other")
        for row in score_rows({s: records(1.0) for s in reference.SCORES}, "entropy")
    ]
    figure = Figure()
    STUDIES["score"].draw(figure, Table(rows))
    assert figure.axes[0].get_legend_handles_labels()[1] == ["one", "other"]


def test_score_rows_by_hand() -> None:
    rows = score_rows({"a": records(1.0, 3.0), "b": records(2.0, 8.0)}, "a")
    assert [row["Hscore"] for row in rows] == [2.0, 5.0] and rows[0]["SA"] == 3.0
    assert rows[0]["deviation"] == pytest.approx(2**0.5) and rows[0]["difference"] is None
    assert rows[1]["difference"] == 3.0 and rows[1]["RA"] == 4.0 and rows[1]["cost"] == 58.0
