"""SA, RA and Hscore on models whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from entprop_fast.data import CORRUPTIONS, corrupt
from entprop_fast.metrics import (
    accuracy,
    accuracy_over,
    hscore,
    robust_accuracy,
    robust_accuracy_over,
)


class Brightness(nn.Module):
    """Class 1 where the mean is above one half; it notes how it was run."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.frozen = nn.BatchNorm2d(1)
        self.batches: list[int] = []
        self.modes: set[tuple[bool, bool]] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        self.modes.add((self.norm.training, torch.is_grad_enabled()))
        self.norm(x)
        bright = x.mean((1, 2, 3)) - 0.5
        return torch.stack((-bright, bright), dim=1)


@pytest.fixture
def model() -> Brightness:
    model = Brightness()
    model.frozen.eval()
    return model


def test_hscore_is_the_harmonic_mean() -> None:
    assert hscore(0.7845, 0.4996) == pytest.approx(0.6104, abs=5e-5)  # the paper's vanilla row
    assert hscore(1, 1) == 1
    assert hscore(0, 0) == 0
    assert hscore(0, 1) == 0
    assert hscore(0.3, 0.6) == pytest.approx(1 / ((1 / 0.3 + 1 / 0.6) / 2))


def test_accuracy_counts_right_answers_whatever_the_batch(model: Brightness) -> None:
    images = torch.linspace(0, 1, 10).view(10, 1, 1, 1).expand(10, 1, 4, 4)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 0])  # rows 4 and 9 are wrong
    for batch_size in (1, 3, 10, 64):
        assert accuracy(model, images, labels, batch_size) == 0.8
    assert model.batches == [1] * 10 + [3, 3, 3, 1] + [10, 10]


def test_evaluation_leaves_no_trace(model: Brightness) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images, labels = torch.rand(6, 1, 4, 4), torch.zeros(6).long()
    accuracy(model, images, labels, 4)
    robust_accuracy(model, images, labels, batch_size=4, kinds=["blur"])
    assert model.modes == {(False, False)}
    assert [m.training for m in (model, model.norm, model.frozen)] == [True, True, False]
    assert torch.is_grad_enabled()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_training_flags_come_back_after_an_error(model: Brightness) -> None:
    with pytest.raises(ValueError, match="expected 4D"):
        accuracy(model, torch.rand(6, 4), torch.zeros(6).long(), 4)
    assert [m.training for m in (model, model.norm, model.frozen)] == [True, True, False]


def test_robust_accuracy_is_the_accuracy_of_each_corrupted_set(model: Brightness) -> None:
    images = torch.rand(30, 1, 1, 1).expand(30, 1, 6, 6).clone()
    labels = (images.mean((1, 2, 3)) > 0.5).long()
    result = robust_accuracy(model, images, labels, batch_size=7, seed=3)
    assert tuple(result) == CORRUPTIONS
    for kind, accuracies in result.items():
        expected = [
            accuracy(model, corrupt(images, kind, severity, seed=3), labels, 30)
            for severity in (1, 2, 3, 4, 5)
        ]
        assert accuracies == expected
    # Grey cannot be blurred; brighter by a half, every image is called bright.
    assert result["blur"] == [1.0] * 5
    assert result["brightness"][-1] == pytest.approx(labels.double().mean().item())


def test_refusals_come_before_any_forward(model: Brightness) -> None:
    images, labels = torch.rand(4, 1, 2, 2), torch.zeros(4).long()
    with pytest.raises(ValueError, match="batch_size = 0"):
        accuracy(model, images, labels, 0)
    with pytest.raises(ValueError, match="4 images but 3 labels"):
        accuracy(model, images, labels[:3], 2)
    with pytest.raises(ValueError, match="images is empty"):
        robust_accuracy(model, images[:0], labels[:0], batch_size=2)
    with pytest.raises(ValueError, match="unknown corruption 'blurr'; nearest: blur"):
        robust_accuracy(model, images, labels, batch_size=2, kinds=["blur", "blurr"])
    with pytest.raises(ValueError, match="kinds is empty"):
        robust_accuracy(model, images, labels, batch_size=2, kinds=[])
    assert model.batches == []


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_batches_give_what_whole_tensors_give(batch_size: int, model: Brightness) -> None:
    images, labels = torch.rand(10, 1, 6, 6), torch.tensor([0, 1] * 5)
    batches = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
    assert accuracy_over(model, batches) == accuracy(model, images, labels, 10)
    whole = robust_accuracy(model, images, labels, batch_size=10, seed=3)
    assert robust_accuracy_over(model, batches, seed=3) == whole
    assert model.modes == {(False, False)} and model.norm.training


def test_no_batches_are_refused(model: Brightness) -> None:
    for measure in (accuracy_over, robust_accuracy_over):
        with pytest.raises(ValueError, match="batches hold no image"):
            measure(model, [])
