"""Steps of AdvProp, Fast AdvProp, MixProp and free training equal those by hand (Exactness)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast import Method
from tests.methods.by_hand import Outcome, Settings
from tests.methods.by_hand_others import OthersByHand
from tests.methods.support import batch, dual_network, generator, make
from tests.methods.test_exactness import MEAN, STD, close, compare, draw

Step = Callable[[OthersByHand, torch.Generator, Tensor, Tensor], Outcome]
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


def check(
    name: str,
    options: dict[str, Any],
    normalize: bool,
    step: Step,
    sizes: tuple[int, ...] = (12, 12),
) -> Method:
    """Steps of the method and of the formulas side by side."""
    state, extra = dual_network().state_dict(), dict[str, Any]()
    hand = OthersByHand(state, MEAN, STD) if normalize else OthersByHand(state)
    if normalize:
        extra["normalization"] = (MEAN, STD)
    method, source = make(name, generator=generator(7), **options, **extra), generator(7)
    for i, rows in enumerate(sizes):
        images, labels = images_of(settings(options), i, rows)
        expected = step(hand, source, images, labels)
        compare(method, hand, method((images - hand.mean) / hand.std, labels), expected)
    return method


def images_of(s: Settings, seed: int, rows: int = 12) -> tuple[Tensor, Tensor]:
    images, labels = batch(rows, seed=seed)
    low, high = s.input_range
    return images * (high - low) + low, labels


@pytest.mark.parametrize("options", ADVPROP, ids=str)
@pytest.mark.parametrize("normalize", [False, True])
def test_advprop(options: dict[str, Any], normalize: bool) -> None:
    s = settings(options, n=5, eps=4 / 255, alpha=1 / 255)
    running = options.get("attack_mode") == "eval"

    def step(hand: OthersByHand, source: torch.Generator, x: Tensor, y: Tensor) -> Outcome:
        m = num(s.k, len(x))
        start = torch.zeros(m, 3, 6, 6, dtype=torch.float64)
        if options.get("random_start", True):
            start = offsets(source, m, s.eps or 0)
        return hand.advprop(x, y, s, start, random_scores(source, s), running=running)

    check("advprop", options, normalize, step)


@pytest.mark.parametrize("options", FAST, ids=str)
@pytest.mark.parametrize("normalize", [False, True])
def test_fast_advprop(options: dict[str, Any], normalize: bool) -> None:
    s = settings(options, eps=1 / 255, alpha=1 / 255)
    p_adv = options.get("p_adv", 0.2)

    def step(hand: OthersByHand, source: torch.Generator, x: Tensor, y: Tensor) -> Outcome:
        start = offsets(source, num(p_adv if s.k is None else s.k, len(x)), s.eps or 0)
        return hand.fast_advprop(x, y, s, start, random_scores(source, s), p_adv=p_adv)

    check("fast_advprop", options, normalize, step)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "max_grad_norm": 0.05}], ids=str)
@pytest.mark.parametrize("mixup", [0.0, 0.2, 1.0])
def test_mixprop(mixup: float, options: dict[str, Any]) -> None:
    def step(hand: OthersByHand, source: torch.Generator, x: Tensor, y: Tensor) -> Outcome:
        draws = draw(source, len(x), mixup, "entropy")
        return hand.mixprop(x, y, settings(options), draws)

    check("mixprop", options | {"mixup": mixup}, False, step)


@pytest.mark.parametrize("options", FREE, ids=str)
@pytest.mark.parametrize("normalize", [False, True])
def test_free_at(options: dict[str, Any], normalize: bool) -> None:
    """Batches of several sizes: the first B' rows of delta serve a batch of B' rows."""
    eps, deltas = options.get("eps", 4 / 255), []
    s = settings({"alpha": eps} | options, eps=eps)

    def step(hand: OthersByHand, _: torch.Generator, x: Tensor, y: Tensor) -> Outcome:
        expected = hand.free_at(x, y, s, replays=options.get("replays", 4))
        assert abs(hand.delta).max() == eps  # projected: some entries are at the radius
        deltas.append(torch.from_numpy(hand.delta.copy()) / hand.std)
        return expected

    method = check("free_at", options, normalize, step, (8, 12, 5, 12))
    close(method.state_dict()["delta"], deltas[-1], "delta")
    assert [len(delta) for delta in deltas] == [8, 12, 12, 12]
