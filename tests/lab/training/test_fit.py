"""A network and images of one's own are trained by the trainer of the commands."""

from __future__ import annotations

import copy
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

import entprop_fast
from entprop_fast.lab import checkpoint
from entprop_fast.lab.cli import evaluate as evaluate_command
from entprop_fast.lab.cli import export as export_command
from entprop_fast.lab.cli import report as report_command
from entprop_fast.lab.cli import train as train_command
from entprop_fast.lab.data import DeviceLoader, ImageData
from entprop_fast.lab.stopping import Stopped, StopSignals
from entprop_fast.lab.training.engine import train
from entprop_fast.lab.training.given_check import GivenCheck
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.layers import DualBatchNorm2d
from entprop_fast.methods.image_units import ImageUnits
from entprop_fast.models import create
from tests.lab.conftest import rows, stop_at, summary

pytestmark = pytest.mark.usefixtures("without_pictures")

CLASSES, SIZE, BATCH = 4, 48, 12
SMALL: dict[str, Any] = {"epochs": 2, "eps": 0.1, "alpha": 0.1, "device": "cpu", "verbose": False}


class Net(nn.Module):
    """A network that views its activations as rows, as many do."""

    def __init__(self, output: type | None = None) -> None:
        super().__init__()
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1)
        self.features = nn.Sequential(*layers)
        self.classify = nn.Linear(4 * 4 * 4, CLASSES)
        self.output = output

    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        logits = self.classify(x.view(len(x), -1))
        return logits if self.output is None else self.output(logits=logits)


def net(**options: Any) -> Net:
    torch.manual_seed(0)
    return Net(**options)


def pair(size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] whose labels are their brightness."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(size) % CLASSES
    noise = 0.2 * torch.rand(size, 3, 6, 6, generator=generator)
    return noise + 0.2 * labels.view(-1, 1, 1, 1), labels


class Noisy(Dataset[tuple[Tensor, int]]):
    """A data set with draws of its own, from every global generator."""

    def __init__(self) -> None:
        self.images, self.labels = pair()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index] * (0.9 + 0.1 * torch.rand(()))
        return image, int(self.labels[index])


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


def same(found: nn.Module, wanted: nn.Module) -> bool:
    pairs = zip(found.state_dict().values(), wanted.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


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


class Items(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


def test_tensors_and_data_sets_train_alike() -> None:
    items = list(zip(*pair(), strict=True))
    named = Items(as_dictionaries(items, "pixel_values", "labels"))
    narrow = Items([(image, numpy.uint8(label)) for image, label in items])
    given: list[Any] = [pair(), TensorDataset(*pair()), Items(items), named, narrow]
    models = [net() for _ in given]
    for model, data in zip(models, given, strict=True):
        entprop_fast.fit(model, data, data, batch_size=BATCH, **SMALL, corruptions="none")
    assert all(same(model, models[0]) for model in models)


def test_scores_are_those_of_evaluate_model() -> None:
    model = net()
    found = entprop_fast.fit(model, pair(), pair(8), **SMALL, corruptions="digits")
    options = entprop_fast.EvaluationOptions(corruptions="digits")
    wanted = entprop_fast.evaluate_model(model, pair(8), options)
    assert (found.sa, found.ra, found.hscore) == (wanted.sa, wanted.ra, wanted.hscore)
    assert found.corruptions == wanted.corruptions and found.corruption_source
    assert (found.dataset, found.arch, found.train_size) == ("data:tensors", "model:Net", SIZE)


def test_without_validation_nothing_is_measured(tmp_path: Path) -> None:
    found = entprop_fast.fit(net(), pair(), out=tmp_path / "run", **SMALL)
    assert (found.sa, found.ra, found.hscore, found.corruptions) == (None, None, None, {})
    assert [row["sa"] for row in rows(tmp_path / "run")] == [None, None]
    assert summary(tmp_path / "run")["sa"] is None


def test_no_file_is_left_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    assert entprop_fast.fit(net(), pair(), **SMALL).folder == ""
    assert [*tmp_path.rglob("*")] == [tmp_path / "tmp"]


@pytest.mark.parametrize("training", [True, False])
def test_what_is_left_of_the_model_and_the_generators(training: bool) -> None:
    model: Any = net().train(training)
    model.features[1].eval()  # a frozen norm
    parameters = dict(model.named_parameters())
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    entprop_fast.fit(model, pair(), **SMALL)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
    assert (model.training, model.features[1].training) == (training, False)
    assert dict(model.named_parameters()) == parameters  # the same objects: in place
    assert model.state_dict().keys() == before.keys()
    assert not torch.equal(before["classify.weight"], model.classify.weight)
    frozen = torch.equal(before["features.1.running_mean"], model.features[1].running_mean)
    assert frozen is training  # put into training mode as a whole, where it was not


def test_the_model_stays_dual_where_that_is_wanted() -> None:
    model: Any = net()
    dual: Any = entprop_fast.convert_dual_norm(net())
    half = dual.features[1].aux_bn
    entprop_fast.fit(model, pair(), strip=False, **SMALL)
    assert isinstance(model.features[1], DualBatchNorm2d)
    entprop_fast.fit(dual, pair(), strip=False, **SMALL)
    assert dual.features[1].aux_bn is half and same(dual, model)
    entprop_fast.fit(dual, pair(), **SMALL)
    assert type(dual.features[1]) is nn.BatchNorm2d


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_dtypes(dtype: torch.dtype) -> None:
    found = entprop_fast.fit(net().to(dtype), pair(), pair(), **SMALL, corruptions="none")
    assert found.sa is not None and found.sa >= 25


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


LOADERS: dict[str, Any] = {
    "its own generator": lambda data: DataLoader(
        data, BATCH, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "the global generator": lambda data: DataLoader(data, BATCH, shuffle=True),
    "workers": lambda data: DataLoader(data, BATCH, shuffle=True, num_workers=1),
    "a data set": lambda data: data,
}
STOPS = [(form, steps) for form in LOADERS for steps in (2, 5)]


@pytest.mark.parametrize(("form", "steps"), [one for one in STOPS if one != ("workers", 2)])
def test_a_stopped_run_goes_on_to_the_same_bits(
    form: str,
    steps: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, small = LOADERS[form], SMALL | ({"batch_size": BATCH} if form == "a data set" else {})
    whole = net()
    torch.manual_seed(11)
    entprop_fast.fit(whole, make(Noisy()), out=tmp_path / "whole", **small)
    torch.manual_seed(12)  # the caller's draws decide nothing
    with monkeypatch.context() as patch, StopSignals().installed():
        stop_at(patch, steps, signal.SIGTERM)
        with pytest.raises(Stopped):
            entprop_fast.fit(net(), make(Noisy()), out=tmp_path / "run", **small)
    assert len(rows(tmp_path / "run")) == steps // 4
    again = net()
    aloud = small | {"verbose": True}
    entprop_fast.fit(again, make(Noisy()), out=tmp_path / "run", resume=True, **aloud)
    assert f"continuing at epoch {1 + steps // 4} of 2" in capsys.readouterr().out
    assert same(again, whole)
    assert [row["loss"] for row in rows(tmp_path / "run")] == [
        row["loss"] for row in rows(tmp_path / "whole")
    ]


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


IMAGES, LABELS = pair()
PAIRS = TensorDataset(IMAGES, LABELS)
LOADER = DataLoader(PAIRS, BATCH)


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


def test_averaged_weights_are_what_the_model_ends_with(tmp_path: Path) -> None:
    model = net()
    entprop_fast.fit(model, pair(), batch_size=BATCH, ema=0.5, out=tmp_path / "run", **SMALL)
    plain = net()
    entprop_fast.fit(plain, pair(), batch_size=BATCH, **SMALL)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    assert not same(model, plain)


def test_the_end_of_the_time_is_an_error_that_resume_answers(tmp_path: Path) -> None:
    given = SMALL | {"epochs": 10**6, "time": "1s", "out": tmp_path / "run"}
    with pytest.raises(TimeoutError, match=r"checkpoint.*resume=True"):
        entprop_fast.fit(net(), pair(), **given)
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_loggers_write_where_there_is_a_folder(tmp_path: Path) -> None:
    entprop_fast.fit(net(), pair(), out=tmp_path / "csv", **SMALL)
    entprop_fast.fit(net(), pair(), out=tmp_path / "none", log=(), **SMALL)
    assert (tmp_path / "csv" / "metrics.csv").exists()
    assert not (tmp_path / "none" / "metrics.csv").exists()


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


OTHER: list[tuple[str, dict[str, Any]]] = [
    ("dtype", {"model": lambda: net().double()}),
    ("dtype", {"model": lambda: net().bfloat16()}),
    ("frozen", {"model": lambda: frozen_net()}),
    ("another network.*classify.weight", {"model": lambda: wider_net()}),
    ("first training image", {"train": DataLoader(TensorDataset(1 - IMAGES, LABELS), BATCH)}),
    ("training images: 24", {"train": DataLoader(TensorDataset(IMAGES[:24], LABELS[:24]), BATCH)}),
    ("training images: 47", {"train": DataLoader(TensorDataset(IMAGES[:-1], LABELS[:-1]), BATCH)}),
    ("normalization", {"normalization": (0.0, 1.0)}),
    ("input_range", {"input_range": (0.0, 2.0)}),
    ("criterion", {"criterion": nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1)}),
]


def frozen_net() -> Net:
    model = net()
    model.features[0].requires_grad_(False)
    return model


def wider_net() -> nn.Module:
    model = net()
    model.classify = nn.Linear(64, CLASSES, bias=False)
    model.classify.weight = nn.Parameter(torch.zeros(CLASSES + 1, 64))
    return model


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped after its first epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch, StopSignals().installed():
        stop_at(patch, 5, signal.SIGTERM)
        with pytest.raises(Stopped):
            entprop_fast.fit(net(), LOADER, out=folder, **SMALL)
    return folder


@pytest.mark.parametrize(("named", "changed"), OTHER)
def test_another_run_is_not_continued(
    named: str, changed: dict[str, Any], one_epoch: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(one_epoch, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    given: dict[str, Any] = {"model": net, "train": LOADER} | SMALL | changed
    given["model"] = given["model"]()
    with pytest.raises(ValueError, match=named):
        entprop_fast.fit(out=folder, resume=True, **given)
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before


class Drawn(Noisy):
    """Images that repeat in no order: a generator of their own draws them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.rand(3, 6, 6, generator=self.generator)
        return noise, int(self.labels[index])


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


def test_images_that_never_repeat_are_not_compared(tmp_path: Path) -> None:
    entprop_fast.fit(net(), Drawn(1), out=tmp_path, batch_size=BATCH, **SMALL)
    entprop_fast.fit(net(), Drawn(2), out=tmp_path, batch_size=BATCH, resume=True, **SMALL)


def test_a_checkpoint_without_an_identity_is_continued(one_epoch: Path, tmp_path: Path) -> None:
    """As earlier versions wrote it."""
    folder = tmp_path / "run"
    shutil.copytree(one_epoch, folder)
    state = checkpoint.read(folder / checkpoint.CURRENT)
    del state["identity"]
    checkpoint.save(folder, state)
    assert entprop_fast.fit(net(), LOADER, out=folder, resume=True, **SMALL).epochs == 2


def test_a_broken_loss_names_no_folder_that_is_gone() -> None:
    model = net()
    nn.init.constant_(model.classify.bias, torch.nan)
    with pytest.raises(RuntimeError) as raised:
        entprop_fast.fit(model, pair(), method="vanilla", epochs=1, device="cpu", verbose=False)
    assert "no folder was named" in str(raised.value)


def test_a_criterion_of_ones_own_is_trained() -> None:
    criterion = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.5)
    models = [net(), net()]
    entprop_fast.fit(models[0], pair(), criterion=criterion, **SMALL)
    entprop_fast.fit(models[1], pair(), label_smoothing=0.5, **SMALL)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_images_of_four_channels_have_no_corruption() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 4))
    data = torch.rand(SIZE, 4, 6, 6), LABELS
    found = entprop_fast.fit(model, data, data, **SMALL)
    assert found.sa is not None and found.ra is None


def test_the_page_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "fit.md").read_text()
    example, code = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["logits"].shape == (1, 4) and type(names["model"][1]) is nn.BatchNorm2d
    assert (tmp_path / "runs" / "mine" / "summary.json").exists()
    (tmp_path / "my_code.py").write_text(code)
    lines = re.findall(r"^python -m entprop_fast\.(\w+) (.*)$", page, re.M)
    modules = train_command, evaluate_command, report_command, export_command
    commands = {module.__name__.rpartition(".")[2]: module for module in modules}
    for name, words in lines:
        if name in commands:  # compare trains six of them, in other processes
            assert commands[name].main(shlex.split(words)) == 0
    assert (tmp_path / "runs" / "own" / "report.html").exists()
    assert (tmp_path / "runs" / "own" / "export" / "model.onnx").exists()
    sys.modules.pop("my_code")
