"""FOUND W9: a model, or a criterion, may write into what it is given; nothing else notices."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast.methods import METHODS
from tests.methods import support as s

MEAN = torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64).view(3, 1, 1)
STD = torch.tensor([0.2, 0.25, 0.3], dtype=torch.float64).view(3, 1, 1)


def normalise(x: Tensor) -> Tensor:
    return x.sub_(MEAN).div_(STD)


def one_channel(x: Tensor) -> Tensor:
    x[:, 1] *= 2
    return x


def past_autograd(x: Tensor) -> Tensor:
    with torch.no_grad():
        x -= MEAN
    return x


def past_the_version_counter(x: Tensor) -> Tensor:
    x.data.sub_(MEAN)
    return x


def now_and_then(x: Tensor) -> Tensor:
    return x.sub_(MEAN) if len(x) < 12 else x - MEAN


Change = Callable[[Tensor], Tensor]
WRITING: dict[str, tuple[Change, Change]] = {  # into its input, and an equal that does not
    "normalise": (normalise, lambda x: (x - MEAN) / STD),
    "one channel": (one_channel, lambda x: torch.stack((x[:, 0], 2 * x[:, 1], x[:, 2]), dim=1)),
    "relu": (lambda x: nn.functional.relu(x, inplace=True), nn.functional.relu),
    "past autograd": (past_autograd, lambda x: x - MEAN),
    "past the version counter": (past_the_version_counter, lambda x: x - MEAN),
    "now and then": (now_and_then, lambda x: x - MEAN),
}


def first(change: Change) -> nn.Module:
    return nn.Sequential(s.Lambda(change), s.dual_network())


CASES = [(name, options, "past the version counter") for name, options in s.EVERY]
CASES += [(name, {}, what) for name in METHODS for what in WRITING]
CASES += [(name, options, what) for name, options in s.UNMIXED.items() for what in WRITING]


@pytest.mark.parametrize(("name", "options", "what"), CASES, ids=str)
def test_it_equals_a_model_that_does_not_write(
    name: str, options: dict[str, Any], what: str
) -> None:
    """FOUND W9: every pass of every method, and the images of the caller stay as they are."""
    one, other = s.pair(name, *map(first, WRITING[what]), **options)
    for step in range(2):
        images, labels = s.batch_for(one, seed=step)
        given = images.clone(), labels.clone()
        found, expected = one(*given), other(images, labels)
        s.assert_equal(list(given), [images, labels])
        s.close(list(found), list(expected))
    s.close(s.left(one), s.left(other))


@pytest.mark.parametrize("rows", [1, 4])  # B = 1; m = 1
def test_the_trial_of_a_single_row_leaves_the_images(rows: int) -> None:
    images, labels = s.batch(rows)
    before = images.clone()
    s.make(model=first(normalise), mixup=0.0)(images, labels)
    s.assert_equal(images, before)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_what_is_mixed_is_not_copied_once_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass owns it, and nothing reads it later."""
    copied: list[int] = []
    clone = Tensor.clone

    def counting(self: Tensor, **options: Any) -> Tensor:
        copied.append(self.ndim)
        return clone(self, **options)

    method = s.make(name)
    method(*s.batch())
    monkeypatch.setattr(Tensor, "clone", counting)
    method(*s.batch(seed=1))
    assert 4 not in copied


class Margin(nn.Module):
    """Shifts the true class's logit in place, and counts on labels that are its own."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        rows = torch.arange(len(labels))
        target = labels.clone()
        if self.in_place:
            logits[rows, target] -= 0.5
            labels.fill_(0)
        else:
            logits = logits - 0.5 * nn.functional.one_hot(labels, logits.shape[1])
        return nn.functional.cross_entropy(logits, target, reduction="none")


@pytest.mark.parametrize("name", METHODS)
def test_a_criterion_that_writes_into_its_arguments(name: str) -> None:
    """FOUND W9, a neighbour: scores, predictions and the partners' loss read the same logits."""
    one, other = (
        s.make(name, criterion=Margin(in_place=in_place), generator=s.generator(5))
        for in_place in (True, False)
    )
    for step in range(2):
        images, labels = s.batch(seed=step)
        given = labels.clone()
        s.close(list(one(images, given)), list(other(images, labels)))
        s.assert_equal(given, labels)
    s.close(s.parameters(one.model), s.parameters(other.model))
