"""Every method through the command, from the recipe to the deployed network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast.lab.cli import evaluate, train
from entprop_fast.lab.training.deploy import load_deployable
from entprop_fast.methods import METHODS
from tests.lab.conftest import Call, model, summary

pytestmark = pytest.mark.usefixtures("without_pictures")

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


def saved(run: Path, part: str) -> Any:
    return torch.load(run / "checkpoint.pt", weights_only=True)[part]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_each_method(method: str, run: Call, tmp_path: Path) -> None:
    run(tmp_path / "run", "--method", method, "--epochs", "1", "--corruptions", "none")
    found = summary(tmp_path / "run")
    assert (found["method"], found["cost"]) == (method, COSTS[method])
    load_deployable(tmp_path / "run" / "model.safetensors")  # a plain network, whatever was trained
    network = str(tmp_path / "run" / "checkpoint.pt")
    assert evaluate.main([network, "--corruptions", "none"]) == 0


def test_shared_norms_train_a_plain_network(run: Call, call: Call, tmp_path: Path) -> None:
    run(tmp_path, "--norms", "shared", "--epochs", "1", "--corruptions", "none")
    assert not [name for name in saved(tmp_path, "model") if "aux_bn" in name]
    assert "aux" in call(evaluate, [str(tmp_path / "checkpoint.pt"), "--norms", "aux"], 2)


def delta(state: Any) -> bool:
    return bool(0 < state["delta"].abs().max() <= 0.1 + 1e-6)


def rows_that_wait(state: Any) -> bool:
    waiting = state["waiting"]
    return len(waiting["images"]) == 4 and waiting["labels"].shape == waiting["labels_b"].shape


def centres(state: Any) -> bool:
    found = state["criterion"]["centres"]
    return found.shape == (10, 10) and not torch.equal(found, torch.eye(10))  # they learn


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ("--method free_at", delta),
        ("--method entprop_pipelined --aux-labels mixed", rows_that_wait),
        ("--method vanilla --criterion gpaco", centres),
        ("--criterion gpaco", centres),
    ],
)
def test_what_a_method_keeps_is_resumed(
    flags: str, kept: Callable[[Any], bool], finished: Path, run: Call, tmp_path: Path
) -> None:
    run(tmp_path, *flags.split(), "--epochs", "2", "--corruptions", "none")
    whole = model(tmp_path)
    assert len(whole) == (finished / "model.safetensors").stat().st_size  # without the centres
    (tmp_path / "checkpoint.prev.pt").replace(tmp_path / "checkpoint.pt")
    for name in ("summary.json", "model.safetensors"):
        (tmp_path / name).unlink()
    assert kept(saved(tmp_path, "method"))
    assert train.main(["--resume", "--out", str(tmp_path)]) == 0
    assert model(tmp_path) == whole
