"""One step and three of each method equal the computation by hand (SPEC: Exactness)."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast import Method, StepResult
from tests.methods.by_hand import ByHand, Draws, Outcome, Settings
from tests.methods.support import batch, dual_network, generator, make, plain_network

KN = [(0.2, 1), (0.6, 5), (1.0, 2)]
MEAN, STD = (0.48, 0.45, 0.4), (0.23, 0.22, 0.25)

SHARED = {"norms": "shared"}
MIXED = {"mixup": 1.0}
PASTED = {"k": 0.6, "n": 2, "cutmix": 1.0}
OPTIONS: list[dict[str, Any]] = [
    {"alpha": 3 / 255},
    {"eps": 0.7 / 255},  # smaller than alpha: every step is cut
    {"alpha": 0.02, "eps": 0.05},
    {"alpha": 0.3, "eps": 0.5},  # the image range cuts
    {"alpha": 0.0},
    {"score": "confidence"},
    {"score": "cross_entropy"},
    {"score": "margin"},
    {"score": "energy"},
    {"score": "gini"},
    {"accumulate": "all"},
    {"aux_weight": 0.3},
    {"aux_weight": 2.0, "accumulate": "all"},
    {"aux_stats": "every"},
    {"equalize": True},
    {"equalize": True, "accumulate": "all", "aux_weight": 0.5},
    {"label_smoothing": 0.1},
    {"input_range": (-1.0, 2.0), "alpha": 0.3, "eps": 0.5},
    {"max_grad_norm": 0.05},
    {"max_grad_norm": 1e6},
    SHARED,
    SHARED | MIXED | {"equalize": True, "accumulate": "all"},
    SHARED | {"aux_stats": "every"},
    MIXED,
    {"mixup": 0.2},
    MIXED | {"aux_labels": "mixed"},
    MIXED | {"aux_labels": "mixed", "equalize": True, "accumulate": "all", "label_smoothing": 0.1},
    MIXED | {"score": "random"},
    MIXED | {"score": "cross_entropy"},  # of the original label, not the mixed loss
    MIXED | {"score": "margin", "aux_stats": "every"},
]
CASES: list[tuple[str, dict[str, Any]]] = [
    *(("entprop", {"k": k, "n": n} | options) for k, n in KN for options in ({}, *OPTIONS)),
    *(
        ("entprop", {"k": 0.6, "n": 4, "attack_loss": loss} | options)
        for loss in ("cw", "trades")
        for options in (
            {"alpha": 0.02},
            MIXED | {"equalize": True, "aux_stats": "every", "alpha": 0.3},
        )
    ),
    *(
        ("entprop", PASTED | {"cutmix": beta} | options)
        for beta in (1.0, 0.2)
        for options in ({}, {"aux_labels": "mixed"}, {"score": "random"})
    ),
    *(("cutmix", {"cutmix": beta}) for beta in (0.0, 0.2, 1.0)),
    *(("mixup", {"mixup": beta}) for beta in (0.0, 0.2, 1.0)),
    ("vanilla", {}),
    *(
        (name, options | more)
        for options in ({"label_smoothing": 0.1}, {"max_grad_norm": 0.05})
        for name, more in (("vanilla", {}), ("mixup", MIXED))
    ),
]


def close(actual: Tensor, expected: Tensor | float, what: str) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(
        actual, expected, rtol=1e-12, atol=1e-12, equal_nan=True, msg=lambda m: f"{what}: {m}"
    )


def draw(
    source: torch.Generator, rows: int, mixup: float, score: str, cutmix: float = 0.0
) -> Draws | None:
    """A step's draws in the documented order: lam, permutation (CutMix's centre), random score."""
    if not mixup and not cutmix:
        return None
    mixup = mixup or cutmix
    lam = torch._sample_dirichlet(torch.tensor([mixup, mixup], dtype=torch.float64), source)[0]
    partners = torch.randperm(rows, generator=source)
    box = (
        box_by_hand(float(lam), torch.rand(2, generator=source, dtype=torch.float64))
        if cutmix
        else None
    )
    random = score == "random"
    scores = torch.rand(rows, generator=source, dtype=torch.float64).tolist() if random else []
    return Draws(float(lam), partners.tolist(), scores, box)


def box_by_hand(lam: float, centre: Tensor, size: int = 6) -> list[list[bool]]:
    """CutMix's box, True inside, on square images."""
    half = int(size * math.sqrt(1 - lam)) // 2
    y, x = (int(share * size) for share in centre.tolist())
    return [
        [abs(i - y + 0.5) < half and abs(j - x + 0.5) < half for j in range(size)]
        for i in range(size)
    ]


def compare(method: Method, hand: ByHand, result: StepResult, expected: Outcome) -> None:
    for name in ("loss", "aux_loss", "correct", "entropy_selected", "entropy_unselected"):
        close(getattr(result, name), getattr(expected, name), name)
    if expected.perturbed is not None:
        chosen = method.selected_index
        assert method.perturbed is not None
        assert (chosen is None) == (not expected.selected)
        assert chosen is None or chosen.tolist() == expected.selected
        mean, std = (hand.mean, hand.std)
        close(method.perturbed * std + mean, expected.perturbed, "perturbed")
    for name, value in method.model.state_dict().items():
        close(value, hand.state[name], name)
    for name, parameter in method.model.named_parameters():
        velocity = method.optimizer.state[parameter].get("momentum_buffer")
        assert (velocity is None) == (name not in hand.velocity), name
        if velocity is not None:
            close(velocity, hand.velocity[name], f"momentum of {name}")


def check(
    name: str = "entprop",
    *,
    hand: ByHand | None = None,
    normalize: bool = False,
    criterion: nn.Module | None = None,
    **options: Any,
) -> None:
    """Run three steps of the method and of the formulas side by side."""
    shared = options.get("norms") == "shared"
    model = plain_network() if shared else dual_network()
    hand = hand or ByHand(model.state_dict())
    mixup, cutmix = options.pop("mixup", 0.0), options.pop("cutmix", 0.0)
    takes = {"vanilla": (), "mixup": ("mixup",), "cutmix": ("cutmix",)}
    both = {"mixup": mixup, "cutmix": cutmix}
    taken: dict[str, Any] = {option: both[option] for option in takes.get(name, both)}
    extra: dict[str, Any] = {"normalization": (MEAN, STD)} if normalize else {}
    method = make(
        name, model=model, generator=generator(7), criterion=criterion, **options, **taken, **extra
    )
    settings = Settings(**({"k": None} if name != "entprop" else {}) | options)
    source = generator(7)
    low, high = settings.input_range
    for i in range(3):
        images, labels = batch(seed=i)
        images = images * (high - low) + low
        draws = draw(source, len(images), mixup, settings.score, cutmix)
        given = (images - hand.mean) / hand.std
        result = method(given, labels)
        compare(method, hand, result, hand.step(images, labels, settings, draws))


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_by_hand(name: str, options: dict[str, Any]) -> None:
    check(name, **options)


@pytest.mark.parametrize("options", [{}, {"alpha": 0.3, "eps": 0.5}, {"mixup": 1.0}], ids=str)
@pytest.mark.parametrize(("k", "n"), KN)
def test_normalised_images_equal_a_normalisation_inside_the_network(
    k: float, n: int, options: dict[str, Any]
) -> None:
    hand = ByHand(dual_network().state_dict(), MEAN, STD)
    check(hand=hand, normalize=True, k=k, n=n, **options)


class Focal(nn.Module):
    """A per-sample loss that is not cross-entropy."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, labels, reduction="none")
        return (1 - (-loss).exp()) ** 2 * loss


def focal(log_p: Tensor, labels: Tensor) -> Tensor:
    true = log_p[range(len(labels)), labels]
    return -((1 - true.exp()) ** 2) * true


@pytest.mark.parametrize("name", ["entprop", "vanilla", "mixup"])
@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_criterion(name: str, mixup: float) -> None:
    options: dict[str, Any] = {"k": 0.6, "n": 2} if name == "entprop" else {}
    if name != "vanilla":
        options["mixup"] = mixup
    hand = ByHand(dual_network().state_dict(), loss=focal)
    check(name, hand=hand, criterion=Focal(), **options)
