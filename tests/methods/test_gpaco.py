"""GPaCo's loss, and methods that train with it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from entprop_fast import create_method
from entprop_fast.methods import GPaCo
from entprop_fast.methods.base import Method
from tests.methods.support import CLASSES, assert_equal, batch, dual_network, generator
from tests.methods.test_no_sync import NoSynchronisation


def by_hand(
    z: list[list[float]], labels: list[int], c: list[list[float]], alpha: float, tau: float
) -> list[float]:
    """The losses as sums over rows and classes."""

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    losses = []
    for i, (row, y) in enumerate(zip(z, labels, strict=True)):
        to_centre = [dot(row, centre) for centre in c]
        to_row = {
            j: dot(row, other) / math.sqrt(dot(row, row) * dot(other, other)) / tau
            for j, other in enumerate(z)
            if j != i
        }
        log_sum = math.log(sum(map(math.exp, [*to_centre, *to_row.values()])))
        positive = [j for j in to_row if labels[j] == y]
        total = to_centre[y] - log_sum + alpha * sum(to_row[j] - log_sum for j in positive)
        losses.append(-total / (1 + alpha * len(positive)))
    return losses


@pytest.mark.parametrize("alpha", [0.0, 0.05, 2.0])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_loss(alpha: float, temperature: float) -> None:
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(9, CLASSES, generator=source, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2, 0, 1, 4, 3, 3])  # the 2 and the 4 have no positive
    criterion = GPaCo(CLASSES, alpha=alpha, temperature=temperature).double()
    with torch.no_grad():
        criterion.centres.add_(torch.randn(CLASSES, CLASSES, generator=source))
    expected = by_hand(
        logits.tolist(), labels.tolist(), criterion.centres.tolist(), alpha, temperature
    )
    losses = criterion(logits, labels)
    assert losses.shape == (9,)
    torch.testing.assert_close(losses.tolist(), expected, rtol=1e-12, atol=1e-12)


def test_one_row_against_fresh_centres_is_cross_entropy() -> None:
    logits, labels = torch.randn(1, CLASSES, dtype=torch.float64), torch.tensor([3])
    torch.testing.assert_close(
        GPaCo(CLASSES).double()(logits, labels), F.cross_entropy(logits, labels, reduction="none")
    )


def test_gradients_reach_logits_and_centres() -> None:
    criterion = GPaCo(3).double()
    labels = torch.tensor([0, 2, 0, 1])

    def loss(logits: Tensor, centres: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(
            criterion, {"centres": centres}, (logits, labels)
        )
        return found

    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    centres = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (logits, centres))


def trained_by(name: str, steps: int = 2, **options: Any) -> tuple[Method, GPaCo]:
    model, criterion = dual_network(), GPaCo(CLASSES)
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.1)
    method = create_method(
        name, model, optimizer, criterion=criterion, generator=generator(5), **options
    )
    for i in range(steps):
        assert method(*batch(seed=i)).loss.isfinite()
    return method, criterion


@pytest.mark.parametrize(
    ("name", "options"),
    [("entprop", {"k": 0.6, "equalize": True}), ("advprop", {}), ("vanilla", {})],
)
def test_methods_learn_the_centres(name: str, options: dict[str, Any]) -> None:
    _, criterion = trained_by(name, **options)
    assert not torch.equal(criterion.centres, torch.eye(CLASSES))
    assert criterion.centres.isfinite().all()


def test_a_methods_state_holds_the_centres() -> None:
    method, criterion = trained_by("entprop")
    state = method.state_dict()
    kept = criterion.centres.detach().clone()
    method(*batch(seed=2))  # the state is a copy
    other, fresh = trained_by("entprop", steps=0)
    other.load_state_dict(state)
    assert_equal(fresh.centres.detach(), kept)


def test_a_step_does_not_synchronise() -> None:
    method, _ = trained_by("entprop", steps=0, check=False)
    with NoSynchronisation():  # type: ignore[no-untyped-call]
        method(*batch())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_classes": 0}, ValueError, "num_classes=0"),
        ({"num_classes": 2.0}, TypeError, r"num_classes=2\.0"),
        ({"num_classes": 5, "alpha": -1.0}, ValueError, r"alpha=-1\.0"),
        ({"num_classes": 5, "temperature": 0.0}, ValueError, r"temperature=0\.0"),
    ],
)
def test_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        GPaCo(**options)


def test_centres_for_other_classes() -> None:
    with pytest.raises(ValueError, match=r"5 classes.*centres for 3.*num_classes"):
        GPaCo(3)(torch.zeros(2, 5), torch.zeros(2).long())
