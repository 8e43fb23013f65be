"""A run that is refused, or fails, leaves what was there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast.lab import checkpoint, data
from entprop_fast.lab.cli import train
from entprop_fast.lab.data import ImageData
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.errors import UsageError
from entprop_fast.lab.training.meter import Meter
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.methods import StepResult
from tests.lab.conftest import Args

pytestmark = pytest.mark.usefixtures("without_pictures")


def test_a_run_is_not_written_over(
    tiny: Args, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert train.main(tiny(finished)) == 2
    assert "--resume" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_overwrite_keeps_the_old_run_until_the_new_one_is_accepted(
    tiny: Args, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert train.main(tiny(out, "--epochs", "1", "--method", "vanilla")) == 0
    before = (out / "summary.json").read_bytes()
    assert train.main(tiny(out, "--overwrite", "--k", "7")) == 2
    assert (out / "summary.json").read_bytes() == before
    assert train.main(tiny(out, "--overwrite", "--epochs", "1", "--seed", "1")) == 0
    assert (out / "summary.json").read_bytes() != before
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--arch wrn16_0.5", "arch is 'wrn16_0.5', was 'wrn10_0.5'"),
        ("--k 0.5 --seed 3", "k is 0.5, was 0.2; seed is 3, was 0"),
        ("--method mixup", "method is 'mixup', was 'entprop'"),
    ],
)
def test_a_checkpoint_of_other_settings_is_not_continued(
    flags: str,
    message: str,
    tiny: Args,
    finished: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert train.main(tiny(finished, "--resume", *flags.split())) == 2
    assert message in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_a_loss_that_becomes_nan_stops_the_run(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train.main(tiny(out, "--lr", "1e30", "--schedule", "constant")) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"failed: .* step \d+; no checkpoint was saved yet\n", error)
    assert not (out / "checkpoint.pt").exists() and not (out / "model.safetensors").exists()


def test_nan_later_in_the_run_keeps_the_last_good_checkpoint(
    tiny: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add = Meter.add

    def add_nan(self: Meter, step: int, images: int, result: StepResult, main_rows: int) -> bool:
        bad = result._replace(aux_loss=torch.tensor(torch.nan)) if step == 5 else result
        return add(self, step, images, bad, main_rows)

    monkeypatch.setattr(Meter, "add", add_nan)
    out = tmp_path / "run"
    assert train.main(tiny(out)) == 1
    error = capsys.readouterr().err
    assert "aux loss is nan at step 5; the last good checkpoint is" in error
    assert checkpoint.read(out / "checkpoint.pt")["epoch"] == 2


def test_weights_that_became_nan_behind_a_finite_loss_are_not_saved(
    tiny: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_batch = Trainer._train_batch

    def breaking(self: Trainer, *batch: torch.Tensor) -> bool:
        full = train_batch(self, *batch)
        if self.step == 4:
            next(self.model.parameters()).data.view(-1)[0] = torch.nan
        return full

    monkeypatch.setattr(Trainer, "_train_batch", breaking)
    out = tmp_path / "run"
    assert train.main(tiny(out)) == 1
    assert "weight is NaN or infinite after step 4" in capsys.readouterr().err
    assert checkpoint.read(out / "checkpoint.pt")["epoch"] == 1


def digits(**changed: Any) -> ImageData:
    return replace(data.load("digits", train_size=40), **changed)


BAD_DATA = {
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
    with pytest.raises(UsageError, match=message):
        train_run(config, images=digits(**BAD_DATA[message]))
    assert not (tmp_path / "run").exists()
