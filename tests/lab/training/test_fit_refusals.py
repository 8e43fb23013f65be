"""What `fit` cannot train is refused, by name, before anything changes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import entprop_fast
from entprop_fast.lab.training.given_check import GivenCheck
from entprop_fast.methods.image_units import ImageUnits
from tests.lab.training.small_fits import (
    BATCH,
    CLASSES,
    IMAGES,
    LABELS,
    LOADER,
    PAIRS,
    SIZE,
    SMALL,
    Items,
    net,
    pair,
    same,
)

pytestmark = pytest.mark.usefixtures("without_pictures")


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(PAIRS)


RGB = (0.0,) * 3, (1.0,) * 3
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"model": "resnet18"}, TypeError, "model"),
    ({"train": [(IMAGES, LABELS)]}, TypeError, "train"),
    ({"train": (IMAGES.numpy(), LABELS.numpy())}, TypeError, "train"),
    ({"validation": 3}, TypeError, "validation"),
    ({"train": (IMAGES, LABELS[:3])}, ValueError, "labels"),
    ({"train": (IMAGES[:0], LABELS[:0])}, ValueError, "images"),
    ({"train": (IMAGES[:, 0], LABELS)}, ValueError, "images"),
    ({"train": (IMAGES.int(), LABELS)}, ValueError, "images"),
    ({"train": (IMAGES * 255, LABELS)}, ValueError, "images"),
    ({"train": ((IMAGES > 0.5).byte(), LABELS)}, ValueError, "images"),
    ({"train": (IMAGES, LABELS.float())}, ValueError, "labels"),
    ({"train": (IMAGES, LABELS + 1)}, ValueError, "labels"),
    ({"train": TensorDataset(IMAGES, LABELS + 1)}, ValueError, "labels"),
    ({"train": Items([(IMAGES[0], 4)] * 2)}, ValueError, "labels"),
    ({"train": Items([(IMAGES[0], 1.0)] * 2)}, ValueError, "labels"),
    ({"train": Items([(IMAGES[0].numpy(), 1)] * 2)}, TypeError, "image"),
    ({"train": Items([])}, ValueError, "train"),
    ({"train": DataLoader(TensorDataset(IMAGES, LABELS - 1), BATCH)}, ValueError, "labels"),
    ({"train": DataLoader(TensorDataset(IMAGES * 9, LABELS), BATCH)}, ValueError, "images"),
    ({"train": DataLoader(TensorDataset(IMAGES), BATCH)}, TypeError, "data gives"),
    ({"train": DataLoader([{"x": IMAGES[0], "y": 1}], 1)}, TypeError, "dictionary"),  # type: ignore[arg-type]
    ({"train": DataLoader(Endless(), BATCH)}, TypeError, "length"),
    ({"validation": (IMAGES, LABELS + 9)}, ValueError, "validation"),
    ({"validation": (IMAGES * 9, LABELS)}, ValueError, "validation"),
    ({"train": LOADER, "batch_size": 4}, ValueError, "batch_size"),
    (
        {
            "train": DataLoader(TensorDataset(IMAGES - 0.5, LABELS), BATCH),
            "augment": "crop-flip",
            "normalization": (0.5, 1.0),
        },
        *(ValueError, "augment"),
    ),
    ({"train": LOADER, "workers": 2}, ValueError, "workers"),
    ({"train": LOADER, "drop_last": True}, ValueError, "drop_last"),
    (
        {"train": (IMAGES - 0.5, LABELS), "augment": "crop-flip", "normalization": (0.5, 1.0)},
        *(ValueError, "augment"),
    ),
    ({"augment": "resized-crop-flip"}, ValueError, "augment"),
    ({"batch_size": SIZE + 1}, ValueError, "batch_size"),
    ({"epochs": 0}, ValueError, "epochs"),
    ({"optimizer": "lamb"}, ValueError, "optimizer"),
    ({"method": "entrop"}, ValueError, "method"),
    ({"kk": 0.3}, TypeError, "kk"),
    ({"num_workers": "2"}, TypeError, "'num_workers'; nearest: workers"),
    ({"k": 1.3}, ValueError, "k"),
    ({"arch": "resnet18"}, TypeError, "arch"),
    ({"generator": torch.Generator()}, TypeError, "generator"),
    ({"normalization": (0.5, 0)}, ValueError, "normalization"),
    ({"normalization": ((0.5, 0.5), (0.2, 0.2))}, ValueError, "normalization"),
    ({"resume": True}, ValueError, "resume"),
    ({"out": ""}, ValueError, "out"),
    ({"out": 3}, TypeError, "out"),
    ({"validation": (IMAGES[:, :1], LABELS)}, ValueError, "validation"),
    ({"validation": (IMAGES[:, :, :4], LABELS)}, ValueError, "validation"),
    ({"validation": (IMAGES[:, :1], LABELS), "normalization": RGB}, ValueError, "channels"),
    ({"log": "paper"}, ValueError, "log"),
    ({"patience": 2}, TypeError, "patience"),
    ({"time": "1s"}, ValueError, "time"),  # no folder keeps what was done by then
    ({"device": "toaster"}, ValueError, "device"),
    ({"train": (IMAGES[:, :2], LABELS)}, ValueError, "model:Net"),
    ({"model": nn.Sequential(nn.Flatten(), nn.Linear(108, 4))}, ValueError, "norm"),
]


@pytest.mark.parametrize(("changed", "error", "named"), REFUSED)
def test_what_cannot_be_trained_is_refused_before_anything_changes(
    changed: dict[str, Any], error: type[Exception], named: str
) -> None:
    given: dict[str, Any] = {"model": net(), "train": (IMAGES, LABELS)} | SMALL | changed
    model = given["model"]
    before = copy.deepcopy(model)
    with pytest.raises(error, match=named):
        entprop_fast.fit(**given)
    if isinstance(model, nn.Module):
        assert model.state_dict().keys() == before.state_dict().keys() and same(model, before)


def test_labels_are_looked_at_before_a_gpu_takes_them() -> None:
    """On CUDA the method itself reads no value."""
    check = GivenCheck(ImageUnits((0.0, 1.0), None), values=True)
    check(IMAGES, LABELS + 1)  # the classes are not known yet
    check.classes = CLASSES
    check(IMAGES, LABELS)
    for images, labels in ((IMAGES, LABELS + 1), (IMAGES, LABELS - 1), (IMAGES + 1, LABELS)):
        with pytest.raises(ValueError, match=r"(labels|images) hold"):
            check(images, labels)


def test_a_folder_with_a_run_is_not_written_over(tmp_path: Path) -> None:
    entprop_fast.fit(net(), pair(), out=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="resume=True"):
        entprop_fast.fit(net(), pair(), out=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="k is"):
        entprop_fast.fit(net(), pair(), out=tmp_path, resume=True, **SMALL, k=0.3)


class Longer(DataLoader[Any]):
    """A loader that gives more than it says."""

    def __len__(self) -> int:
        return 2


def test_batches_beyond_the_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"len\(\)"):
        entprop_fast.fit(net(), Longer(PAIRS, BATCH), **SMALL)


def test_a_link_to_nothing_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match="link"):
        entprop_fast.fit(net(), pair(), out=tmp_path / "link", **SMALL)


def test_a_broken_loss_names_no_folder_that_is_gone() -> None:
    model = net()
    nn.init.constant_(model.classify.bias, torch.nan)
    with pytest.raises(RuntimeError) as raised:
        entprop_fast.fit(model, pair(), method="vanilla", epochs=1, device="cpu", verbose=False)
    assert "no folder was named" in str(raised.value)
