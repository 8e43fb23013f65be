"""Sentences of the studies: they follow their rows, and say nothing that is not clear in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from entprop_fast.lab.experiments.studies import STUDIES
from entprop_fast.lab.experiments.studies.differences import NO_CELLS, corrected
from entprop_fast.lab.experiments.studies.form import Row
from entprop_fast.lab.experiments.studies.variant_scores import score_rows

from .conftest import lead, records

# Of the sweeps: baseline, a clear variant, one that is not.
SWEEPS = {
    "ratio": ("k=0.2", "k=0.1", "k=1"),
    "steps": ("n=1", "n=2", "n=5"),
    "components": ("vanilla", "selection only", "all"),
    "transforms": ("MixUp, free step", "MixUp, none", "MixUp, zoom"),
    "affine": ("shared", "affine", "statistics"),
}
SCORES = ("entropy", "confidence", "cross_entropy", "margin", "energy", "gini", "random")
BASE = (70.0, 71.0, 72.0)


def moved(offset: float) -> list[dict[str, float]]:
    """Records whose Hscore differs from `BASE` by nearly the same everywhere."""
    return records(*(h + offset for h in (70.0, 71.1, 71.9)))


def signed(mean: float, half: float) -> Row:
    return lead(mean, mean - half, mean + half)


def entropy_rows(sign: float) -> list[Row]:
    clear, none = signed(sign * 0.1, 0.05), signed(0.5, 0.6)
    return [
        {"variant": "unselected", "whole run": 0.2, **NO_CELLS},
        {"variant": "selected", "whole run": 0.2 + sign * 0.1, **clear},
        {"variant": "perturbed", "whole run": 0.7, **none},
    ]


def bias_rows(sign: float) -> list[Row]:
    shares: Row = {"top tenth (%)": 31.25, "never (%)": 2.5, "Gini": 0.35}
    clear, none = signed(sign * 0.2, 0.1), signed(0.02, 0.1)
    return [
        {"variant": name, **shares, **cells}
        for name, cells in (("random", NO_CELLS), ("entropy", clear), ("no mixing", none))
    ]


def size_rows(sign: float) -> list[Row]:
    rows: list[Row] = []
    for size, cells in ((100, signed(5 * sign, 1)), (200, signed(0.0, 1))):
        rows.append({"images": size, "variant": "vanilla", "gap": 12.0, **NO_CELLS})
        rows.append({"images": size, "variant": "entprop", "gap": 4.5, **cells})
    return rows


def score_study_rows(sign: float) -> list[Row]:
    rows: list[Row] = []
    for arch, offset in (("small", 5.0 * sign), ("large", 0.0)):
        found = {score: records(*BASE) for score in SCORES} | {"random": moved(offset)}
        overlaps = dict(zip(SCORES, (1.0, 0.8, 0.5, 0.6, 0.7, 0.75, 0.11), strict=True))
        rows += [
            {"arch": arch, **row, "overlap": overlaps[str(row["variant"])]}
            for row in score_rows(found, "entropy")
        ]
    return corrected(rows)


def norms_rows(sign: float) -> list[Row]:
    def row(measure: str, layer: str, value: float, mean: float, half: float) -> Row:
        cells: Row = {"measure": measure, "layer": layer, "value": value}
        against: Row = {"against": "after 10% of the run", "its value": value - sign * mean}
        return cells | against | signed(sign * mean, half)

    return [
        row("Hscore", "all", 80.0, 3.0, 1.0),
        row("separability", "layer1", 70.0, 4.0, 5.0),
        row("separability", "layer2", 75.0, 6.0, 5.0),
        row("drift of means", "bn1", 0.5, 0.2, 0.1),
        row("drift of means", "bn2", 0.75, 0.4, 0.1),
    ]


def ood_rows(sign: float) -> list[Row]:
    none, detector, near = signed(2.0, 3.0), signed(20.0 * sign, 5.0), signed(-0.5 * sign, 0.2)
    distance: Row = {"AUROC shifted": None, "distance high": 0.75}
    return [
        {"variant": "k-NN", "AUROC shifted": 81.25, "distance high": None, **detector},
        {"variant": "nearer to shifted", "AUROC shifted": None, "distance high": None, **none},
        {"variant": "to blur", **distance, **near},
        {"variant": "to shift", **distance, **none},
    ]


def budget_rows(sign: float) -> list[Row]:
    rows: list[Row] = []
    for size, cells in ((100, signed(5 * sign, 1)), (200, signed(0.5, 1))):
        for epochs in (20, 60):
            place: Row = {"images": size, "epochs": epochs}
            rows.append({**place, "variant": "vanilla", **NO_CELLS})
            rows.append({**place, "variant": "entprop", **cells})
    return rows


def adds_rows(sign: float) -> list[Row]:
    rows: list[Row] = []
    for augment, ours in (("", moved(5 * sign)), ("@prime", records(72.0, 69.0, 73.0))):
        pair = {f"vanilla{augment}": records(*BASE), f"entprop{augment}": ours}
        rows += score_rows(pair, f"vanilla{augment}")
    return corrected(rows)


def sweep_rows(name: str) -> Callable[[float], list[Row]]:
    base, clear, unclear = SWEEPS[name]
    return lambda sign: score_rows(
        {base: records(*BASE), clear: moved(5 * sign), unclear: records(72.0, 69.0, 73.0)}, base
    )


# Study: its rows, and what is said of a clear difference up or down. {} is higher or lower; a + in
# the same words is the sign.
SAID: dict[str, tuple[Callable[[float], list[Row]], tuple[str, ...]]] = {
    **{
        name: (sweep_rows(name), (f"{{}}: {up} +5.0 (", f"no clear difference: {same} +"))
        for name, (_, up, same) in SWEEPS.items()
    },
    "entropy": (entropy_rows, ("{}: selected +0.100 (", "no clear difference: perturbed ")),
    "bias": (
        bias_rows,
        (
            "{}: entropy +0.20 (",
            "difference: no mixing ",
            "entropy 31.2 % (never selected: 2.50 %)",
        ),
    ),
    "size": (
        size_rows,
        ("100 images {}: entprop +5.0", "200 images no clear", "vanilla 12.0, entprop 4.50"),
    ),
    "score": (
        score_study_rows,
        ("on small {}: random +5.0 (", "on large no clear", "0.50 to 0.80 with", "random's 0.11"),
    ),
    "norms": (
        norms_rows,
        (
            "Hscore: {}, +3.0 (",
            "{} in 1 of 2 layers, no clear difference in 1 of 2 layers (mean over layers +5.00)",
            "largest in bn2 (0.75)",
        ),
    ),
    "budget": (budget_rows, ("100 images at 20 epochs {}, +5.0 (", "200 images at 20 epochs no ")),
    "adds": (adds_rows, ("{}: entprop +5.0 (", "no clear difference: entprop@prime +")),
    "ood": (ood_rows, ("{}: k-NN +20.0 (", "difference: nearer to shifted +2.0", "k-NN 81 ")),
}
# Other words for up and down, and which of them a study says where its first difference is up.
OTHER_WORDS = {"norms": ("grown", "shrunk"), "ood": ("smaller", "larger")}


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize(
    ("sign", "word", "other"), [(1, "higher", "lower"), (-1, "lower", "higher")]
)
def test_the_sentence_follows_the_rows(name: str, sign: int, word: str, other: str) -> None:
    rows, said = SAID[name]
    sentence = STUDIES[name].sentence(rows(sign))
    for one in said:
        wanted = one.replace("{}", word)
        if sign < 0 and "{}" in one:
            wanted = wanted.replace("+", "−")
        assert wanted in sentence
    assert other not in sentence
    if name in OTHER_WORDS:
        up, down = OTHER_WORDS[name][::sign]
        assert f"{up} in " in sentence and f"{down} in " not in sentence


def test_entropies_are_ordered() -> None:
    for sign, order in ((1, "unselected, selected"), (-1, "selected, unselected")):
        sentence = STUDIES["entropy"].sentence(entropy_rows(sign))
        assert sentence.endswith(f"from lowest to highest: {order}, perturbed.")


def test_what_is_unclear_is_no_word_for_up_or_down() -> None:
    row: Row = {"measure": "Hscore", "layer": "all", "value": 1.0, "against": "it", **signed(3, 4)}
    said = STUDIES["norms"].sentence([row])
    assert "Hscore: no clear difference" in said and "higher" not in said


@pytest.mark.parametrize(
    ("leads", "said"),
    [
        ((-4, 0, 3, 5), "it overtakes at 60 epochs"),
        ((-4, 3, 0, 5), "it overtakes at 120 epochs"),  # higher once is not overtaking
        ((3, 3, 3, 0), "it overtakes nowhere in this table"),
        ((3, 3, 3, 3), "it is ahead everywhere in this table, from 15 epochs on"),
    ],
)
def test_where_entprop_overtakes(leads: tuple[int, ...], said: str) -> None:
    rows: list[Row] = [
        {"images": 100, "epochs": epochs, "variant": "entprop", **signed(lead, 1)}
        for epochs, lead in zip((15, 30, 60, 120), leads, strict=True)
    ]
    assert STUDIES["budget"].sentence(rows).endswith(f": {said}.")


def test_adds_names_what_scores_most() -> None:
    assert "the highest mean is entprop's (76" in STUDIES["adds"].sentence(adds_rows(1))
    assert "the highest mean is entprop@prime's (71" in STUDIES["adds"].sentence(adds_rows(-1))
