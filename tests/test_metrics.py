"""Accuracy and Hscore on models whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from entprop_fast.lab.evaluation.metrics import accuracy, hscore


class Brightness(nn.Module):
    """Class 1 where the mean is above one half; it notes how it was run."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.frozen = nn.BatchNorm2d(1)
        self.modes: set[tuple[bool, bool]] = set()

    def forward(self, x: Tensor) -> Tensor:
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


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_accuracy_counts_right_answers_whatever_the_batch(
    batch_size: int, model: Brightness
) -> None:
    images = torch.linspace(0, 1, 10).view(10, 1, 1, 1).expand(10, 1, 4, 4)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 0])  # rows 4 and 9 are wrong
    batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    assert accuracy(model, batches) == 0.8


def test_evaluation_leaves_no_trace(model: Brightness) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    accuracy(model, [(torch.rand(6, 1, 4, 4), torch.zeros(6).long())])
    assert model.modes == {(False, False)}
    assert [m.training for m in (model, model.norm, model.frozen)] == [True, True, False]
    assert torch.is_grad_enabled()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_training_flags_come_back_after_an_error(model: Brightness) -> None:
    with pytest.raises(ValueError, match="expected 4D"):
        accuracy(model, [(torch.rand(6, 4), torch.zeros(6).long())])
    assert [m.training for m in (model, model.norm, model.frozen)] == [True, True, False]


def test_no_batches_are_refused(model: Brightness) -> None:
    with pytest.raises(ValueError, match="batches hold no image"):
        accuracy(model, [])


class InPlace(Brightness):
    """It normalises its own input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.25).mul_(2))


def test_images_stay_as_they_are_where_a_model_writes_into_them() -> None:
    """FOUND W9: a test set that is corrupted a little more at every evaluation."""
    images, labels = torch.rand(8, 1, 4, 4), torch.tensor([0, 1] * 4)
    given = images.clone()
    first = accuracy(InPlace(), [(given, labels)])
    assert torch.equal(given, images)
    assert accuracy(InPlace(), [(given, labels)]) == first
