from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from entprop_fast.lab.experiments.studies import STUDIES, Options
from entprop_fast.lab.experiments.studies.features import features, features_by_layer, perturbed
from entprop_fast.lab.experiments.studies.form import Row, number
from entprop_fast.lab.experiments.studies.norms import drift
from entprop_fast.layers import DualBatchNorm2d, convert_dual_norm
from entprop_fast.layers.dual_norm import DualNorm

from .conftest import KINDS, lead


def dual_norm(channels: int) -> DualBatchNorm2d:
    layer = convert_dual_norm(nn.BatchNorm2d(channels, eps=1.0))
    assert isinstance(layer, DualBatchNorm2d)
    return layer


def test_drift_by_hand() -> None:
    layer = dual_norm(2)
    assert drift(layer) == {
        "drift of means": 0.0,
        "drift of variances": 0.0,
        "drift of affines": 0.0,
    }
    assert layer.running_var is not None and layer.aux_bn.running_mean is not None
    layer.running_var.fill_(3.0)  # + eps: 4, a deviation of 2
    layer.aux_bn.running_mean.copy_(torch.tensor([2.0, 0.0]))  # 1 and 0 deviations
    assert layer.aux_bn.running_var is not None
    layer.aux_bn.running_var.fill_(4 * math.e - 1)
    with torch.no_grad():
        layer.aux_bn.weight.fill_(4.0)  # from (1, 1, 0, 0) to (4, 4, 0, 0)
    found = drift(layer)
    assert found["drift of means"] == pytest.approx(math.sqrt(1 / 2))
    assert found["drift of variances"] == pytest.approx(1.0)
    assert found["drift of affines"] == pytest.approx(3.0)


def test_a_layer_norm_has_affines_alone() -> None:
    layer = convert_dual_norm(nn.LayerNorm(3))
    assert isinstance(layer, DualNorm)
    assert drift(layer) == {"drift of affines": 0.0}


def test_features_and_the_free_step() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Dropout(0.9), nn.Flatten(), nn.Linear(8, 2))
    images = torch.rand(3, 1, 2, 2)
    read, logits = features(model, images)
    torch.testing.assert_close(read, model[0](images).flatten(1))
    torch.testing.assert_close(logits, model[3](read))
    layers = features_by_layer(model, images)
    torch.testing.assert_close(layers["0"], model[0](images).mean(dim=(2, 3)))
    assert list(layers) == ["0", "1"] and model.training
    moved = perturbed(model, images, torch.tensor([0, 1, 0]), 0.25)
    assert (images - moved).abs().max() <= 0.25 + 1e-6 and 0 <= moved.min() and moved.max() <= 1
    eval_model = model.eval()
    losses = [
        nn.functional.cross_entropy(eval_model(x), torch.tensor([0, 1, 0])) for x in (images, moved)
    ]
    assert losses[1] > losses[0]
    with pytest.raises(ValueError, match="no linear layer"):
        features(nn.Sequential(nn.Flatten()), images)


def row(measure: str, layer: str, value: float, mean: float, half: float) -> Row:
    cells: Row = {
        "measure": measure,
        "layer": layer,
        "value": value,
        "against": "after 10% of the run",
        "its value": value - mean,
    }
    return cells | lead(mean, mean - half, mean + half)


@pytest.mark.parametrize(
    ("sign", "word", "count"), [(1, "higher", "grown"), (-1, "lower", "shrunk")]
)
def test_the_sentence_of_norms(sign: float, word: str, count: str) -> None:
    rows = [
        row("Hscore", "all", 80.0, sign * 3.0, 1.0),
        row("separability", "layer1", 70.0, sign * 4.0, 5.0),
        row("separability", "layer2", 75.0, sign * 6.0, 5.0),
        row("drift of means", "bn1", 0.5, sign * 0.2, 0.1),
        row("drift of means", "bn2", 0.75, sign * 0.4, 0.1),
    ]
    hscore, separability, drifts = STUDIES["norms"].sentence(rows).split("; ")
    assert f"Hscore: {word}, {'+' if sign > 0 else '−'}3.0" in hscore
    assert f"{word} in 1 of 2 layers, no clear difference in 1 of 2 layers" in separability
    assert f"mean over layers {'+' if sign > 0 else '−'}5.00" in separability
    assert "largest in bn2 (0.75)" in drifts and f"{count} in 2 of 2 layers" in drifts
    unclear = STUDIES["norms"].sentence([row("Hscore", "all", 80.0, sign * 3.0, 4.0)])
    assert "Hscore: no clear difference" in unclear and word not in unclear


@pytest.mark.parametrize(("sign", "word"), [(1, "higher"), (-1, "lower")])
def test_the_sentence_of_ood(sign: float, word: str) -> None:
    clear = lead(sign * 20.0, sign * 20.0 - 5, sign * 20.0 + 5)
    none = lead(2.0, -1.0, 5.0)
    nearer = lead(sign * -0.5, sign * -0.5 - 0.2, sign * -0.5 + 0.2)
    rows: list[Row] = [
        {"variant": "k-NN", "AUROC shifted": 81.25, "distance high": None, **clear},
        {"variant": "nearer to shifted", "AUROC shifted": None, "distance high": None, **none},
        {"variant": "to blur", "AUROC shifted": None, "distance high": 0.75, **nearer},
        {"variant": "to shift", "AUROC shifted": None, "distance high": 0.75, **none},
    ]
    sentence = STUDIES["ood"].sentence(rows)
    assert f"{word}: k-NN {'+' if sign > 0 else '−'}20.0" in sentence
    assert "no clear difference: nearer to shifted +2.0" in sentence and "k-NN 81 " in sentence
    size = "smaller" if sign > 0 else "larger"
    assert f"{size} in 1 of 2 corruptions, no clear difference in 1 of 2" in sentence
    assert {"smaller": "larger", "larger": "smaller"}[size] not in sentence


def test_the_study_of_norms_runs(shared: Options) -> None:
    result = STUDIES["norms"].run(shared)
    assert result.sentence == STUDIES["norms"].sentence(result.rows)
    separability = [row for row in result.rows if row["measure"] == "separability"]
    layers = ["conv1", "layer1", "layer2", "layer3", "bn", "avgpool"]
    assert [row["layer"] for row in separability] == layers
    assert len([row for row in result.rows if row["measure"] == "drift of means"]) == 7
    assert len(result.figure.axes) == 6


def test_the_study_of_ood_runs(shared: Options) -> None:
    result = STUDIES["ood"].run(shared)
    assert result.sentence == STUDIES["ood"].sentence(result.rows)
    found = {str(row["variant"]): row for row in result.rows}
    assert len(found) == 5 + len(KINDS)
    assert found["nearer to shifted"]["AUROC shifted"] is None
    for kind in KINDS:
        row = found[f"to {kind}"]
        assert row["AUROC high"] is None
        assert all(0 < number(row, f"distance {group}") < 10 for group in ("high", "random"))
    # max-softmax orders nearly as entropy does, and random rows are as good as the rest
    assert float(found["max-softmax"]["AUROC high"] or 0) > 90
    assert 35 < float(found["max-softmax"]["AUROC random"] or 0) < 65
