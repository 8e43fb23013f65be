"""Steps of AdvProp, Fast AdvProp, MixProp and free training equal those by hand (Exactness)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast import Method
from tests.methods.by_hand import Settings
from tests.methods.by_hand_others import OthersByHand
from tests.methods.support import batch, dual_network, generator, make
from tests.methods.test_exactness import MEAN, STD, close, compare, draw

WIDE: dict[str, Any] = {"eps": 0.3, "alpha": 0.2}  # the image range cuts
COMMON: list[dict[str, Any]] = [
    {},
    WIDE,
    {"eps": 0.01, "alpha": 0.02},  # the radius cuts
    {"label_smoothing": 0.1, "max_grad_norm": 0.05},
    {"input_range": (-1.0, 2.0), **WIDE},
]
ADVPROP: list[dict[str, Any]] = [
    *COMMON,
    {"n": 1},
    {"random_start": False},
    {"attack_mode": "eval", **WIDE},
    {"attack_loss": "cw", "alpha": 0.02},
    {"attack_loss": "trades", "alpha": 0.02},
    {"k": 0.6},
    {"k": 0.2, "score": "margin", "attack_loss": "trades"},
    {"k": 0.6, "score": "random", "attack_mode": "eval"},
    {"k": 1.0, "score": "gini"},
]
FAST: list[dict[str, Any]] = [
    *COMMON,
    {"p_adv": 0.5, **WIDE},
    {"p_adv": 0.75},
    {"k": 0.6},
    {"k": 0.2, "score": "energy"},
    {"k": 1.0, "score": "random", **WIDE},
]
FREE: list[dict[str, Any]] = [
    *COMMON,
    {"replays": 1},
    {"replays": 2, "eps": 0.05},  # alpha = eps
]


def settings(options: dict[str, Any], **defaults: Any) -> Settings:
    known = Settings.__dataclass_fields__
    return Settings(**{n: v for n, v in ({"k": None} | defaults | options).items() if n in known})


def offsets(source: torch.Generator, rows: int, eps: float) -> Tensor:
    unit = torch.rand((rows, 3, 6, 6), generator=source, dtype=torch.float64)
    return (2 * unit - 1) * eps


def num(k: float | None, rows: int) -> int:
    return rows if k is None else max(1, int(k * rows + 0.5))


def random_scores(source: torch.Generator, s: Settings) -> list[float]:
    if s.score != "random":
        return []
    scores: list[float] = torch.rand(12, generator=source, dtype=torch.float64).tolist()
    return scores


def prepared(
    name: str, options: dict[str, Any], normalize: bool
) -> tuple[Method, OthersByHand, torch.Generator]:
    state = dual_network().state_dict()
    hand = OthersByHand(state, MEAN, STD) if normalize else OthersByHand(state)
    extra: dict[str, Any] = {"normalization": (MEAN, STD)} if normalize else {}
    return make(name, generator=generator(7), **options, **extra), hand, generator(7)


def images_of(s: Settings, seed: int, rows: int = 12) -> tuple[Tensor, Tensor]:
    images, labels = batch(rows, seed=seed)
    low, high = s.input_range
    return images * (high - low) + low, labels


@pytest.mark.parametrize("options", ADVPROP, ids=str)
@pytest.mark.parametrize("normalize", [False, True])
def test_advprop(options: dict[str, Any], normalize: bool) -> None:
    method, hand, source = prepared("advprop", options, normalize)
    s = settings(options, n=5, eps=4 / 255, alpha=1 / 255)
    for i in range(2):
        images, labels = images_of(s, i)
        m = num(s.k, len(images))
        assert s.eps is not None
        start = torch.zeros(m, 3, 6, 6, dtype=torch.float64)
        if options.get("random_start", True):
            start = offsets(source, m, s.eps)
        scores = random_scores(source, s)
        expected = hand.advprop(
            images, labels, s, start, scores, running=options.get("attack_mode") == "eval"
        )
        result = method((images - hand.mean) / hand.std, labels)
        compare(method, hand, result, expected)


@pytest.mark.parametrize("options", FAST, ids=str)
@pytest.mark.parametrize("normalize", [False, True])
def test_fast_advprop(options: dict[str, Any], normalize: bool) -> None:
    method, hand, source = prepared("fast_advprop", options, normalize)
    s = settings(options, eps=1 / 255, alpha=1 / 255)
    p_adv = options.get("p_adv", 0.2)
    for i in range(2):
        images, labels = images_of(s, i)
        assert s.eps is not None
        start = offsets(source, num(p_adv if s.k is None else s.k, len(images)), s.eps)
        scores = random_scores(source, s)
        expected = hand.fast_advprop(images, labels, s, start, scores, p_adv=p_adv)
        result = method((images - hand.mean) / hand.std, labels)
        compare(method, hand, result, expected)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "max_grad_norm": 0.05}], ids=str)
@pytest.mark.parametrize("mixup", [0.0, 0.2, 1.0])
def test_mixprop(mixup: float, options: dict[str, Any]) -> None:
    method, hand, source = prepared("mixprop", options | {"mixup": mixup}, normalize=False)
    s = settings(options)
    for i in range(3):
        images, labels = images_of(s, i)
        draws = draw(source, len(images), mixup, "entropy")
        compare(method, hand, method(images, labels), hand.mixprop(images, labels, s, draws))


@pytest.mark.parametrize("options", FREE, ids=str)
@pytest.mark.parametrize("normalize", [False, True])
def test_free_at(options: dict[str, Any], normalize: bool) -> None:
    """Batches of several sizes: the first B' rows of delta serve a batch of B' rows."""
    method, hand, _ = prepared("free_at", options, normalize)
    eps = options.get("eps", 4 / 255)
    s = settings({"alpha": eps} | options, eps=eps)
    for i, rows in enumerate((8, 12, 5, 12)):
        images, labels = images_of(s, i, rows)
        result = method((images - hand.mean) / hand.std, labels)
        expected = hand.free_at(images, labels, s, replays=options.get("replays", 4))
        compare(method, hand, result, expected)
        delta = method.state_dict()["delta"]
        close(delta * hand.std, torch.from_numpy(hand.delta), "delta")
        assert hand.delta.shape[0] == max(8, rows if i < 2 else 12)
        assert abs(hand.delta).max() == eps  # projected: some entries are at the radius
