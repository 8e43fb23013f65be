from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from entprop_fast.lab.experiments.studies import STUDIES, Options
from entprop_fast.lab.experiments.studies.differences import corrected
from entprop_fast.lab.experiments.studies.differences import word as word_of
from entprop_fast.lab.experiments.studies.form import Row, Table, number
from entprop_fast.lab.experiments.studies.variant_scores import score_rows

SCORES = ("entropy", "confidence", "cross_entropy", "margin", "energy", "gini", "random")
VARIANTS = {
    "ratio": ["k=0.1", "k=0.2", "k=1"],
    "steps": ["n=1", "n=2", "n=5"],
    "components": ["vanilla", "selection only", "all"],
    "transforms": ["MixUp, free step", "MixUp, none", "MixUp, zoom"],
}
BASELINES = {
    "ratio": "k=0.2",
    "steps": "n=1",
    "components": "vanilla",
    "transforms": "MixUp, free step",
}


def records(*hscores: float) -> list[dict[str, float]]:
    return [{"sa": h + 1, "ra": h - 1, "hscore": h, "cost": 58.0} for h in hscores]


def made_up(name: str, direction: float) -> list[Row]:
    """The baseline, one clear variant, one that is not."""
    found = {v: records(70.0, 71.0, 72.0) for v in VARIANTS[name]}
    first, second = (v for v in VARIANTS[name] if v != BASELINES[name])
    found[first] = records(*(h + direction * 5 for h in (70.0, 71.1, 71.9)))
    found[second] = records(72.0, 69.0, 73.0)
    return score_rows(found, BASELINES[name])


def test_score_rows_by_hand() -> None:
    rows = score_rows({"a": records(1.0, 3.0), "b": records(2.0, 8.0)}, "a")
    assert [row["Hscore"] for row in rows] == [2.0, 5.0] and rows[0]["SA"] == 3.0
    assert rows[0]["deviation"] == pytest.approx(2**0.5) and rows[0]["difference"] is None
    assert rows[1]["difference"] == 3.0 and rows[1]["RA"] == 4.0 and rows[1]["cost"] == 58.0


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("direction", "word"), [(1, "higher"), (-1, "lower")])
def test_the_sentence_follows_the_table(name: str, direction: float, word: str) -> None:
    rows = made_up(name, direction)
    first, second = (row for row in rows if row["difference"] is not None)
    assert word_of(first) == word and word_of(second) == "no clear difference"
    sentence = STUDIES[name].sentence(rows)
    groups = dict(part.split(": ", 1) for part in sentence.split("): ", 1)[1].split("; ")[:2])
    assert groups[word].startswith(f"{first['variant']} ")
    assert groups["no clear difference"].startswith(f"{second['variant']} ")
    assert {"higher": "lower", "lower": "higher"}[word] not in sentence


@pytest.mark.parametrize(("direction", "word"), [(1, "higher"), (-1, "lower")])
def test_the_scores_sentence(direction: float, word: str) -> None:
    rows: list[Row] = []
    for arch, offset in (("small", 5.0 * direction), ("large", 0.0)):
        found = {score: records(70.0, 71.0, 72.0) for score in SCORES}
        found["random"] = records(*(h + offset for h in (70.0, 71.1, 71.9)))
        overlaps = dict(zip(SCORES, (1.0, 0.8, 0.5, 0.6, 0.7, 0.75, 0.11), strict=True))
        rows += [
            {"arch": arch, **row, "overlap": overlaps[str(row["variant"])]}
            for row in score_rows(found, "entropy")
        ]
    rows = corrected(rows)
    small, large = STUDIES["score"].sentence(rows).split("; on ")
    assert f"{word}: random {'+' if direction > 0 else '−'}5.0" in small
    assert word not in large and "no clear difference: confidence" in large
    assert "share 0.50 to 0.80 with entropy's, random's 0.11" in small


@pytest.mark.parametrize("name", ["ratio", "steps", "components", "score", "transforms"])
def test_a_study_runs(name: str, shared: Options) -> None:
    options = replace(shared, archs=("wrn10_0.5", "wrn16_0.5")) if name == "score" else shared
    result = STUDIES[name].run(options)
    assert result.sentence == STUDIES[name].sentence(result.rows)
    assert "a single seed has no interval" in result.sentence
    assert all(0 < float(row["Hscore"] or 0) < 100 for row in result.rows)
    redrawn = Figure()
    STUDIES[name].draw(redrawn, Table(result.rows))
    assert len(result.figure.axes) == len(redrawn.axes) == 2


def test_a_larger_share_and_more_steps_cost_more(shared: Options) -> None:
    for name in ("ratio", "steps"):
        costs = [float(row["cost"] or 0) for row in STUDIES[name].run(shared).rows]
        assert costs == sorted(costs) and costs[-1] > costs[0]


def test_overlaps_are_between_chance_and_the_same(shared: Options) -> None:
    rows = STUDIES["score"].run(replace(shared, archs=("wrn10_0.5",))).rows
    assert [(row["arch"], row["variant"]) for row in rows] == [("wrn10_0.5", s) for s in SCORES]
    overlaps = {row["variant"]: number(row, "overlap") for row in rows}
    assert overlaps["entropy"] == 1.0 and all(0 <= one <= 1 for one in overlaps.values())
    assert overlaps["random"] < 0.5 < overlaps["gini"]  # gini ranks two classes as entropy does
