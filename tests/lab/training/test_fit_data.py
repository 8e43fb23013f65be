"""Whatever form the images given to `fit` have, the run is that of the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset

import entprop_fast
from entprop_fast.lab.data import DeviceLoader, ImageData
from entprop_fast.lab.training.engine import train
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.models import create
from tests.lab.conftest import rows
from tests.lab.training.small_fits import (
    BATCH,
    CLASSES,
    SIZE,
    SMALL,
    Items,
    Noisy,
    net,
    pair,
    same,
)

pytestmark = pytest.mark.usefixtures("without_pictures")


class CommandsOrder(Sampler[list[int]]):
    """Batches in the order of a command's run."""

    def __init__(self, seed: int) -> None:
        self.loader = DeviceLoader(*pair(), BATCH, seed=seed, drop_last=True, device="cpu")
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.loader._order(self.epoch).view(-1, BATCH).tolist())


@pytest.mark.parametrize("method", ["entprop", "vanilla"])
def test_a_loader_of_the_commands_order_gives_the_commands_bits(
    method: str, tmp_path: Path
) -> None:
    images, labels = pair()
    data = ImageData("own", images, labels, images, labels, CLASSES)
    settings: dict[str, Any] = {"lr": 0.1, "epochs": 2, "batch_size": BATCH, "weight_decay": 5e-4}
    settings |= {"nesterov": True, "schedule": "onecycle", "corruptions": "none", "seed": 3}
    settings |= {"log": "csv"}
    config = resolve("digits", method=method, **settings, device="cpu", out=str(tmp_path / "c"))
    commands = train(config, images=data)
    torch.manual_seed(3)
    model = create("wrn10_0.5", num_classes=CLASSES)
    batches = DataLoader(TensorDataset(images, labels), batch_sampler=CommandsOrder(3))
    del settings["batch_size"], settings["lr"]
    own: dict[str, Any] = {"eps": 0.1, "alpha": 0.1} if method == "entprop" else {}
    found = entprop_fast.fit(
        model, batches, pair(), method=method, device="cpu", out=tmp_path / "f", **settings, **own
    )
    wanted, saved = (load_file(tmp_path / one / "model.safetensors") for one in "cf")
    assert wanted.keys() == saved.keys() == model.state_dict().keys()
    assert all(torch.equal(wanted[name], saved[name]) for name in wanted)
    assert all(torch.equal(wanted[name], value) for name, value in model.state_dict().items())
    assert (found.sa, found.cost, found.epochs) == (commands.sa, commands.cost, commands.epochs)
    names = ("loss", "aux_loss", "train_accuracy", "sa", "gap", "lr")
    kept = [[[row[name] for name in names] for row in rows(tmp_path / one)] for one in "cf"]
    assert kept[0] == kept[1]
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        path.name for path in (tmp_path / "f").iterdir()
    }


def as_dictionaries(items: list[tuple[Tensor, Tensor]], image: str, label: str) -> Any:
    return [{image: one, label: other, "path": "x.png"} for one, other in items]


def listed(data: TensorDataset) -> Any:
    return list(DataLoader(data, BATCH))


FORMS: dict[str, Any] = {
    "loader": lambda data: DataLoader(data, BATCH),
    "workers": lambda data: DataLoader(data, BATCH, num_workers=1),
    "pixel_values": lambda data: DataLoader(as_dictionaries(data, "pixel_values", "labels"), BATCH),
    "image": lambda data: DataLoader(as_dictionaries(data, "image", "label"), BATCH),
    "batches as items": lambda data: DataLoader(listed(data), batch_size=None),
    "stream": lambda data: DataLoader(Stream(data), BATCH),
    "bytes": lambda data: DataLoader(
        TensorDataset((255 * data.tensors[0]).round().byte(), data.tensors[1].int()), BATCH
    ),
    "doubles": lambda data: DataLoader(TensorDataset(data.tensors[0].double(), data[:][1]), BATCH),
}


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        return (self.data[row] for row in range(len(self.data)))


@pytest.fixture(scope="module")
def bytes_() -> TensorDataset:
    images, labels = pair()
    return TensorDataset((255 * images).round() / 255, labels)


@pytest.fixture(scope="module")
def trained(bytes_: TensorDataset) -> nn.Module:
    model = net()
    entprop_fast.fit(model, DataLoader(bytes_, BATCH), **SMALL)
    return model


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_loader_trains_alike(
    form: str, trained: nn.Module, bytes_: TensorDataset
) -> None:
    model = net()
    given = FORMS[form](bytes_)
    found = entprop_fast.fit(model, given, given, **SMALL, corruptions="none")
    assert same(model, trained)
    assert found.train_size == SIZE and found.cost == pytest.approx(2 * (BATCH + 2) / BATCH)


def test_tensors_and_data_sets_train_alike() -> None:
    items = list(zip(*pair(), strict=True))
    named = Items(as_dictionaries(items, "pixel_values", "labels"))
    narrow = Items([(image, numpy.uint8(label)) for image, label in items])
    given: list[Any] = [pair(), TensorDataset(*pair()), Items(items), named, narrow]
    models = [net() for _ in given]
    for model, data in zip(models, given, strict=True):
        entprop_fast.fit(model, data, data, batch_size=BATCH, **SMALL, corruptions="none")
    assert all(same(model, models[0]) for model in models)


def test_outputs_that_hold_logits(trained: nn.Module, bytes_: TensorDataset) -> None:
    model = net(output=SimpleNamespace)
    entprop_fast.fit(model, DataLoader(bytes_, BATCH), bytes_, **SMALL, corruptions="none")
    assert same(model, trained)


def test_normalised_images_train_and_score_as_a_normalising_network_does() -> None:
    """float64: equal but for the rounding of two ways to the same numbers."""
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    images, labels = pair()
    images = images.double()
    constants = [torch.tensor(one, dtype=torch.float64).view(-1, 1, 1) for one in (mean, std)]
    normalised = (images - constants[0]) / constants[1]

    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net().double()

        def forward(self, x: Tensor) -> Any:
            return self.inner((x - constants[0]) / constants[1])

    plain, inside = net().double(), Normalising()
    given, small = (normalised, labels), SMALL | {"corruptions": "digits"}
    found = entprop_fast.fit(plain, given, given, normalization=(mean, std), **small)
    wanted = entprop_fast.fit(inside, (images, labels), (images, labels), **small)
    pairs = zip(plain.state_dict().values(), inside.state_dict().values(), strict=True)
    assert all(torch.allclose(one, other, rtol=1e-9, atol=1e-9) for one, other in pairs)
    assert found.sa == wanted.sa and found.ra == pytest.approx(wanted.ra, abs=0.2)


def test_bytes_are_normalised_here() -> None:
    images, labels = pair()
    bytes_ = (255 * images).round().byte()
    models = [net(), net()]
    for model, given in zip(models, (bytes_, (bytes_ / 255 - 0.5) / 0.25), strict=True):
        data = (given, labels)
        entprop_fast.fit(model, data, normalization=(0.5, 0.25), batch_size=BATCH, **SMALL)
    assert same(*models)


def test_epochs_differ_and_repeat() -> None:
    seen: list[Tensor] = []

    class Sees(Noisy):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            seen.append(torch.tensor(index))
            return super().__getitem__(index)

    orders = []
    for _ in range(2):
        seen.clear()
        entprop_fast.fit(net(), DataLoader(Sees(), BATCH, shuffle=True), **SMALL)
        orders.append(torch.stack(seen))
    assert torch.equal(*orders)
    # An image to look at, an epoch, its first images in order, and so on.
    first, second = orders[0][1 : 1 + SIZE], orders[0][1 + 2 * SIZE : 1 + 3 * SIZE]
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(SIZE))
    assert not torch.equal(first, second)
