from __future__ import annotations

import math

import pytest

from entprop_fast.lab.experiments import statistics as paired_statistics
from entprop_fast.lab.experiments.comparison.method_rows import method_rows, statement
from entprop_fast.lab.experiments.studies.differences import (
    NO_CELLS,
    against_baseline,
    baseline_of,
    corrected,
    paired,
    verdict,
    word,
)
from entprop_fast.lab.experiments.studies.form import Row
from entprop_fast.lab.experiments.studies.variant_scores import score_table

from .conftest import lead


def test_cells_are_the_statistics_corrected_over_the_rows() -> None:
    found = paired_statistics.paired({0: 3.0, 1: 5.0, 2: 7.5}, {0: 2.0, 1: 3.0, 2: 4.0})
    assert found is not None and found.p is not None
    cells = paired([3.0, 5.0, math.nan, 7.5], [2.0, 3.0, 1.0, 4.0])  # FOUND W12: NaN is no pair
    assert list(cells.values()) == [found.mean, found.low, found.high, found.p, 3]
    assert corrected([cells, cells, NO_CELLS])[0]["p"] == pytest.approx(2 * found.p)
    for values in ([math.nan], [1.0, 2.0]):
        with pytest.raises(ValueError, match="no pair"):
            paired(values, [1.0])


@pytest.mark.parametrize(
    ("values", "others", "said"),
    [
        ([90.0], [10.0], "no clear difference, +80.0 (a single seed has no interval)"),
        (
            [2.0, 3.0],
            [1.0, 2.0],
            "no clear difference, +1.0 (2 equal differences have no interval)",
        ),
        ([10.0, 50.0, 90.1], [9.0, 49.0, 89.0], "higher, +1.0 (+0.9 to +1.2)"),  # by seed
    ],
)
def test_words_of_a_difference(values: list[float], others: list[float], said: str) -> None:
    """FOUND W12: what has no interval is no claim."""
    assert verdict(corrected([paired(values, others)])[0]) == said


@pytest.mark.parametrize(
    "hscores", [(71.0, 72.0), (71.1, 71.9), (75.2, 75.8), (65.0, 66.1), (71.0,)]
)
def test_a_study_and_a_comparison_say_the_same(hscores: tuple[float, ...]) -> None:
    """FOUND W12: one statistic in one product, whatever the seeds."""
    values = {"base": (70.0, 71.0), "other": hscores, "third": (60.0, 61.01)}
    records = {
        name: [
            {"sa": h, "ra": h, "hscore": h, "cost": 1.0, "seconds": 1.0, "corruption_source": ""}
            for h in found[: len(hscores)]
        ]
        for name, found in values.items()
    }
    study = score_table(records, "base").rows[1]
    compared = method_rows({name: dict(enumerate(runs)) for name, runs in records.items()}, "base")
    theirs = compared[1].differences["hscore"]
    assert [theirs.mean, theirs.low, theirs.high] == [
        study[n] for n in ("difference", "low", "high")
    ]
    assert (theirs.corrected_p, theirs.verdict) == (study["p"], word(study))
    claimed = [f"{one}: other" in statement(compared, "base") for one in ("higher", "lower")]
    assert claimed == [word(study) == one for one in ("higher", "lower")]


def test_a_value_that_rounds_to_0_has_no_minus() -> None:
    assert verdict(lead(-0.01, -1.0, 1.0)).endswith("+0.0 (−1.0 to +1.0)")


def test_variants_are_grouped_by_their_verdict() -> None:
    rows: list[Row] = [
        {"variant": "up", **lead(2.0, 1.0, 3.0)},
        {"variant": "base", **NO_CELLS},
        {"variant": "down", **lead(-2.0, -3.0, -1.0)},
        {"variant": "same", **lead(1.0, -1.0, 3.0)},
        {"variant": "up too", **lead(4.0, 3.0, 5.0)},
    ]
    assert baseline_of(rows)["variant"] == "base"
    assert against_baseline(rows) == (
        "higher: up +2.0 (+1.0 to +3.0), up too +4.0 (+3.0 to +5.0); "
        "lower: down −2.0 (−3.0 to −1.0); no clear difference: same +1.0 (−1.0 to +3.0)"
    )
