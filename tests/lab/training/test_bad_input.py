"""Every refusal is one line on stderr with exit code 2, and leaves nothing behind."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast.lab import checkpoint, data
from entprop_fast.lab.cli import compare, corrupt, evaluate, study, train
from entprop_fast.lab.data import ImageData
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.errors import UsageError
from entprop_fast.lab.training.meter import Meter
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.methods import StepResult

from .conftest import Args

pytestmark = pytest.mark.usefixtures("without_pictures")

CASES = {
    "--arch wrm10_0.5": "arch 'wrm10_0.5'",
    "--arch wrn11_1": "depth",
    "--arch resnet19": "nearest: resnet18",
    "--dataset digit": "nearest: digits",
    "--method entprp": "nearest: entprop",
    "--recipe digitz": "nearest: digits",
    "--recipe missing.toml": "there is no such file",
    "--score entrop": "score",
    "--k 0": "k=0",
    "--k 1.5": "k=1.5",
    "--k -0.2": "k=-0.2",
    "--n 0": "n=0",
    "--eps -0.1": "eps=-0.1",
    "--alpha -4/255": "alpha=-0.01",
    "--alpha 1": "alpha=1.0: expected image units",
    "--mixup -1": "mixup=-1",
    "--aux-weight 0": "aux_weight=0",
    "--batch-size 1": "B=1",
    "--batch-size 41": "batch_size = 41",
    "--arch resnet18 --batch-size 5": "m=1",
    "--train-size 5": "train_size = 5",
    "--train-size 1298": "1297",
    "--data-dir /tmp": "takes no --data-dir",
    "--epochs 0": "epochs must be at least 1",
    "--lr 0": "lr must be",
    "--lr fast": "neither a number nor a fraction",
    "--epochs 1.5": "--epochs",
    "--epochs": "--epochs",
    "--optimizer sdg": "nearest: sgd",
    "--amp fp16": "loss scaling",
    "--amp bf17": "nearest: bf16",
    "--device gpu": "device must be",
    "--device cuda:99": "CUDA devices",
    "--device mps": "torch sees 0 MPS devices",  # FOUND C17, C8
    "--device xpu:1": "torch sees 0 XPU devices",
    "--device cpu:1": "device must be",
    "--device meta": "device must be",
    "--seed -1": "seed must be",
    "--method vanilla --k 0.2": "has no option 'k'",
    "--method mixup --score margin": "has no option 'score'",
    "--resume --overwrite": "one of them",
    "--epoch 3": "nearest: --epochs",
    "stray": "unknown argument 'stray'",
}


@pytest.mark.parametrize("flags", CASES)
def test_refused(
    flags: str, tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "run"
    assert train.main(tiny(out, *flags.split())) == 2
    error = capsys.readouterr().err
    assert CASES[flags] in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(train, ()), (compare, ()), (study, ("score",)), (evaluate, ("run",))],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_one_of_several_processes(
    command: Any,
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As torchrun starts them: before anything is read or written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: WORLD_SIZE=2: ") and error.count("\n") == 1
    assert "without torchrun" in error and "docs/distributed.md" in error
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("WORLD_SIZE", "1")  # torchrun --nproc-per-node 1
    assert command.main(("--no-such-flag",)) == 2
    assert "WORLD_SIZE" not in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(tiny: Args, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    for out in (file, file / "run"):
        assert train.main(tiny(out)) == 2
    assert file.read_text() == "in the way"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(train, ()), (compare, ("--methods", "vanilla")), (study, ("score",))],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_folder_that_the_system_refuses(
    command: Any, arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it does for one within a folder of somebody else's, but for root."""
    out = tmp_path / ("long" * 80)
    assert command.main([*arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert str(out) in error and "File name too long" in error


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


def test_evaluate_refuses(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truncated = tmp_path / "model.safetensors"
    truncated.write_bytes((finished / "model.safetensors").read_bytes()[:-100])
    cases = {
        str(finished / "model.safetensors --norms aux"): "no auxiliary norms",
        f"{finished} --norms auxx": "nearest: aux",
        f"{finished} --dataset digit": "nearest: digits",
        f"{finished} --batch-size 0": "batch_size = 0",
        f"{finished} --workers -1": "workers = -1",
        f"{finished} --eps 4/255": "--pgd STEPS or --autoattack",
        f"{finished} --autoattack --alpha 1/255": "--pgd STEPS",
        f"{finished} --out {tmp_path}/nowhere/x.json": "there is no folder",
        str(tmp_path / "nothing"): "no such",
        str(truncated): "cannot be read",
        str(finished.parent): "holds neither",
        "": "CHECKPOINT",
    }
    for arguments, message in cases.items():
        assert evaluate.main(arguments.split()) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["summary.json/report", "metrics.jsonl", "config.toml/x.json", ""])
def test_evaluate_refuses_before_it_works(
    name: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluate, "evaluate_model", None)
    out = finished / name if name else tmp_path / "folder.json"
    if not name:
        out.mkdir()
    before = sorted(finished.iterdir())
    assert evaluate.main([str(finished), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert str(out.parent) in error
    assert sorted(finished.iterdir()) == before


@pytest.mark.parametrize("threads", ["0", "-1"])
def test_no_threads(
    threads: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    commands = {evaluate: [str(finished)], corrupt: ["--dataset", "digits", "--out", str(out)]}
    for command, arguments in commands.items():
        assert command.main([*arguments, "--threads", threads]) == 2
        error = capsys.readouterr().err
        assert error == f"error: threads must be at least 1, got {threads}\n"
    assert not out.exists()
