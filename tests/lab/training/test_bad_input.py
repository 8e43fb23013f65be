"""A run that is refused, or fails, leaves what was there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast.lab import checkpoint, data
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.errors import UsageError
from entprop_fast.lab.training.meter import Meter
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.methods import StepResult
from tests.lab.conftest import Call, rows

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("", "--resume"),
        ("--resume --arch wrn16_0.5", "arch is 'wrn16_0.5', was 'wrn10_0.5'"),
        ("--resume --k 0.5 --seed 3", "k is 0.5, was 0.2; seed is 3, was 0"),
        ("--overwrite --k 7", "k=7"),
    ],
)
def test_a_run_is_kept(flags: str, words: str, run: Call, finished: Path) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert words in run(finished, *flags.split(), code=2)
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_overwrite_replaces_a_run(run: Call, tmp_path: Path) -> None:
    for method in ("vanilla", "entprop"):
        run(tmp_path, "--overwrite", "--epochs", "1", "--method", method, "--corruptions", "none")
    assert len(rows(tmp_path)) == 1 and rows(tmp_path)[0]["aux_loss"] > 0


def test_a_loss_that_becomes_nan_stops_the_run(run: Call, tmp_path: Path) -> None:
    error = run(tmp_path, "--lr", "1e30", "--schedule", "constant", code=1)
    assert re.search(r" step \d+; no checkpoint was saved yet\n", error)
    assert not (tmp_path / "checkpoint.pt").exists()
    assert not (tmp_path / "model.safetensors").exists()


def nan_in_the_loss(patch: pytest.MonkeyPatch) -> None:
    add = Meter.add

    def add_nan(self: Meter, step: int, images: int, result: StepResult, main_rows: int) -> bool:
        bad = result._replace(aux_loss=torch.tensor(torch.nan)) if step == 5 else result
        return add(self, step, images, bad, main_rows)

    patch.setattr(Meter, "add", add_nan)


def nan_behind_a_finite_loss(patch: pytest.MonkeyPatch) -> None:
    train_batch = Trainer._train_batch

    def breaking(self: Trainer, *batch: torch.Tensor) -> bool:
        full = train_batch(self, *batch)
        if self.step == 4:
            next(self.model.parameters()).data.view(-1)[0] = torch.nan
        return full

    patch.setattr(Trainer, "_train_batch", breaking)


@pytest.mark.parametrize(
    ("breaks", "words", "epoch"),
    [
        (nan_in_the_loss, "aux loss is nan at step 5; the last good checkpoint is", 2),
        (nan_behind_a_finite_loss, "weight is NaN or infinite after step 4", 1),
    ],
)
def test_nan_later_in_the_run_keeps_the_last_good_checkpoint(
    breaks: Callable[[pytest.MonkeyPatch], None],
    words: str,
    epoch: int,
    run: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaks(monkeypatch)
    assert words in run(tmp_path, code=1)
    assert checkpoint.read(tmp_path / "checkpoint.pt")["epoch"] == epoch


BAD_DATA: dict[str, dict[str, Any]] = {
    "labels hold": {"train_labels": torch.full((40,), 10)},
    "input_range": {"train_images": torch.full((40, 1, 8, 8), 1.5)},
    "nan": {"train_images": torch.full((40, 1, 8, 8), torch.nan)},
    "float64": {"train_images": torch.zeros(40, 1, 8, 8, dtype=torch.float64)},
    "uint8": {"train_images": torch.zeros(40, 1, 8, 8, dtype=torch.uint8)},
    "int64": {"train_labels": torch.zeros(40, dtype=torch.int32)},
}


@pytest.mark.parametrize("message", BAD_DATA)
def test_data_that_the_model_cannot_take(message: str, tmp_path: Path) -> None:
    config = resolve("digits", batch_size=20, out=str(tmp_path / "run"), device="cpu")
    digits = data.load("digits", train_size=40)
    assert isinstance(digits, data.ImageData)
    with pytest.raises(UsageError, match=message):
        train_run(config, images=replace(digits, **BAD_DATA[message]))
    assert not (tmp_path / "run").exists()
