"""Pipelined EntProp's steps equal those by hand and the reference's (SPEC: Exactness)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast import Method
from entprop_fast.reference import entprop_pipelined_step
from tests.methods.by_hand_others import OthersByHand
from tests.methods.support import batch, dual_network, generator, make, parameters, sgd, statistics
from tests.methods.test_exactness import MEAN, STD, Focal, close, compare, draw, focal
from tests.methods.test_exactness_of_others import images_of, settings

NAME = "entprop_pipelined"
SIZES = (12, 12, 7, 12, 12, 14)  # rows: a smaller batch in the middle, a larger one at the end
OPTIONS: list[dict[str, Any]] = [
    {},
    {"k": 0.6},
    {"k": 1.0},
    {"aux_weight": 0.3},
    {"aux_weight": 2.0, "max_grad_norm": 0.05, "label_smoothing": 0.1},
    {"k": 0.6, "alpha": 0.02, "eps": 0.01},
    {"k": 0.6, "alpha": 0.3, "eps": 0.5},  # the image range cuts
    {"alpha": 0.3, "input_range": (-1.0, 2.0)},
    {"score": "margin", "k": 0.6},
    {"score": "energy"},
]
MIXED: list[dict[str, Any]] = [
    {},
    {"k": 0.6, "aux_labels": "mixed", "aux_weight": 0.5},
    {"k": 0.6, "score": "random"},
]


def check(
    method: Method, hand: OthersByHand, source: torch.Generator, options: dict[str, Any]
) -> None:
    """Steps on batches of several sizes beside the formulas."""
    s = settings({"k": 0.2} | options)
    beta = options.get("mixup", 0.0), options.get("cutmix", 0.0)
    for i, rows in enumerate(SIZES):
        images, labels = images_of(s, i, rows)
        draws = draw(source, rows, beta[0], s.score, beta[1])
        result = method((images - hand.mean) / hand.std, labels)
        compare(method, hand, result, hand.pipelined(images, labels, s, draws))
        assert (float(result.aux_loss) > 0) == (i > 0)


def prepared(**options: Any) -> Method:
    usual: dict[str, Any] = {"mixup": 0.0, "generator": generator(7)}
    return make(NAME, **usual | options)


def state() -> dict[str, Tensor]:
    return dual_network().state_dict()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_by_hand(options: dict[str, Any]) -> None:
    check(prepared(**options), OthersByHand(state()), generator(7), options)


@pytest.mark.parametrize("mixing", [{"mixup": 1.0}, {"mixup": 0.2}, {"cutmix": 1.0}], ids=str)
@pytest.mark.parametrize("options", MIXED, ids=str)
def test_by_hand_with_mixed_images(mixing: dict[str, float], options: dict[str, Any]) -> None:
    check(prepared(**mixing, **options), OthersByHand(state()), generator(7), options | mixing)


def test_by_hand_with_normalised_images() -> None:
    options: dict[str, Any] = {"k": 0.6, "alpha": 0.3, "mixup": 1.0}
    method = prepared(normalization=(MEAN, STD), **options)
    check(method, OthersByHand(state(), MEAN, STD), generator(7), options)


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_by_hand_with_a_criterion(mixup: float) -> None:
    options: dict[str, Any] = {"k": 0.6, "mixup": mixup, "aux_weight": 0.5}
    hand = OthersByHand(state(), loss=focal)
    check(prepared(criterion=Focal(), **options), hand, generator(7), options)


@pytest.mark.parametrize("k", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("options", [{"mixup": 1.0}, {"aux_weight": 0.3, "alpha": 0.02}], ids=str)
def test_the_method_equals_the_reference_step(k: float, options: dict[str, Any]) -> None:
    method, model = prepared(k=k, **options), dual_network()
    optimizer, waiting = sgd(model), None
    given: dict[str, Any] = {"k": k, "mixup": 0.0, "generator": generator(7)} | options
    for i, rows in enumerate(SIZES):
        result = method(*batch(rows, seed=i))
        main, aux, waiting = entprop_pipelined_step(
            model,
            optimizer,
            *batch(rows, seed=i),
            waiting,
            **given,
        )
        close(result.loss, main, "loss")
        close(result.aux_loss, aux, "aux_loss")
        assert method.perturbed is not None
        close(method.perturbed, waiting[0], "perturbed")
    for name, value in (parameters(method.model) | statistics(method.model)).items():
        close(value, (parameters(model) | statistics(model))[name], name)
