"""A run of `fit` that was stopped goes on to the same bits, and no other run in its place."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import entprop_fast
from entprop_fast.lab import checkpoint
from entprop_fast.lab.stopping import Stopped, StopSignals
from tests.lab.conftest import rows, stop_at
from tests.lab.training.small_fits import (
    BATCH,
    CLASSES,
    IMAGES,
    LABELS,
    LOADER,
    SMALL,
    Net,
    Noisy,
    net,
    pair,
    same,
)

pytestmark = pytest.mark.usefixtures("without_pictures")

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


def test_the_end_of_the_time_is_an_error_that_resume_answers(tmp_path: Path) -> None:
    given = SMALL | {"epochs": 10**6, "time": "1s", "out": tmp_path / "run"}
    with pytest.raises(TimeoutError, match=r"checkpoint.*resume=True"):
        entprop_fast.fit(net(), pair(), **given)
    assert (tmp_path / "run" / "checkpoint.pt").exists()


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
