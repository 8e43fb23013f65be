"""Every method through the command, from the recipe to the deployed network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from entprop_fast.lab.cli import evaluate, train
from entprop_fast.lab.training.deploy import load_deployable
from entprop_fast.methods import METHODS
from tests.lab.conftest import Args

COSTS = {  # in passes over the data: of batches of 20, 4 or a share of 0.2 of them attacked
    "vanilla": 1.0,
    "mixup": 1.0,
    "cutmix": 1.0,
    "mixprop": 2.0,
    "entprop": 1.2,
    "fast_advprop": 1.2,
    "advprop": 7.0,
    "free_at": 4.0,
    "entprop_pipelined": 1.1,  # the first of two batches takes no rows along
}


def back_to_the_first_epoch(run: Path) -> None:
    """Leave a run of two as it stood after the first."""
    (run / "checkpoint.prev.pt").replace(run / "checkpoint.pt")
    for name in ("summary.json", "model.safetensors"):
        (run / name).unlink()


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_each_method(method: str, tiny: Args, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train.main(tiny(out, "--method", method, "--epochs", "1")) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["method"], summary["cost"]) == (method, COSTS[method])
    load_deployable(out / "model.safetensors")  # a plain network, whatever was trained
    assert evaluate.main([str(out / "checkpoint.pt")]) == 0


@pytest.mark.usefixtures("without_pictures")
def test_shared_norms_train_a_plain_network(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train.main(tiny(out, "--norms", "shared", "--epochs", "1")) == 0
    state = torch.load(out / "checkpoint.pt", weights_only=True)["model"]
    assert not [name for name in state if "aux_bn" in name]
    assert evaluate.main([str(out / "checkpoint.pt")]) == 0
    assert evaluate.main([str(out / "checkpoint.pt"), "--norms", "aux"]) == 2
    assert "aux" in capsys.readouterr().err


@pytest.mark.usefixtures("without_pictures")
def test_free_training_resumes_with_its_delta(tiny: Args, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main(tiny(whole, "--method", "free_at", "--epochs", "2")) == 0
    assert train.main(tiny(parts, "--method", "free_at", "--epochs", "2")) == 0
    back_to_the_first_epoch(parts)
    delta = torch.load(parts / "checkpoint.pt", weights_only=True)["method"]["delta"]
    assert 0 < delta.abs().max() <= 0.1 + 1e-6
    assert train.main(["--resume", "--out", str(parts)]) == 0
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("without_pictures")
def test_pipelined_training_resumes_with_the_rows_that_wait(tiny: Args, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = ("--method", "entprop_pipelined", "--epochs", "2", "--aux-labels", "mixed")
    assert train.main(tiny(whole, *flags)) == 0
    assert train.main(tiny(parts, *flags)) == 0
    weights = (whole / "model.safetensors").read_bytes()
    back_to_the_first_epoch(parts)
    waiting = torch.load(parts / "checkpoint.pt", weights_only=True)["method"]["waiting"]
    assert len(waiting["images"]) == 4 and waiting["labels"].shape == waiting["labels_b"].shape
    assert train.main(["--resume", "--out", str(parts)]) == 0
    assert (parts / "model.safetensors").read_bytes() == weights


def test_examples_are_drawn_of_split_batches(tiny: Args, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train.main(tiny(out, "--method", "fast_advprop", "--epochs", "1")) == 0
    assert (out / "examples.png").exists()


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("method", ["vanilla", "entprop"])
def test_gpacos_loss_by_name(method: str, tiny: Args, tmp_path: Path) -> None:
    out, plain = tmp_path / "run", tmp_path / "plain"
    assert train.main(tiny(out, "--method", method, "--criterion", "gpaco")) == 0
    assert train.main(tiny(plain, "--method", method)) == 0
    centres = torch.load(out / "checkpoint.pt", weights_only=True)["method"]["criterion"]["centres"]
    assert centres.shape == (10, 10) and not torch.equal(centres, torch.eye(10))  # they learn
    network, _ = load_deployable(out / "model.safetensors")  # without the centres
    assert (out / "model.safetensors").stat().st_size == (
        plain / "model.safetensors"
    ).stat().st_size
    assert all(value.isfinite().all() for value in network.state_dict().values())
    weights = (out / "model.safetensors").read_bytes()
    assert weights != (plain / "model.safetensors").read_bytes()
    back_to_the_first_epoch(out)
    assert train.main(["--resume", "--out", str(out)]) == 0
    assert (out / "model.safetensors").read_bytes() == weights
