"""A run's folder holds what it should, and the evaluate command agrees with it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from entprop_fast import models
from entprop_fast.lab.cli import evaluate, train
from entprop_fast.lab.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from entprop_fast.lab.data import load
from entprop_fast.lab.evaluation import metrics
from entprop_fast.lab.training.deploy import load_deployable
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.run_folder import RunFolder
from tests.lab.conftest import Call, model, rows, summary

pytestmark = pytest.mark.usefixtures("without_pictures")

FILES = "config.toml metrics.jsonl checkpoint.pt checkpoint.prev.pt model.safetensors summary.json"
PICTURES = "curves.png corruptions.png examples.png"


def test_the_folder_of_a_run(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {*FILES.split(), *PICTURES.split()}
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in finished.glob("*.png"))
    assert [(row["epoch"], row["step"]) for row in rows(finished)] == [(1, 2), (2, 4), (3, 6)]
    for row in rows(finished):
        assert row["gap"] == pytest.approx(row["train_accuracy"] - row["sa"])
        assert row["entropy_selected"] >= row["entropy_unselected"] > 0
        assert min(row["loss"], row["aux_loss"], row["lr"], row["images_per_second"]) > 0


def test_the_summary_is_the_deployed_networks(finished: Path) -> None:
    found = summary(finished)
    deployed, spec = load_deployable(finished / "model.safetensors")
    images = load("digits", seed=0)
    sa = 100 * metrics.accuracy(deployed, [(images.test_images, images.test_labels)])
    shares = [
        metrics.accuracy(
            deployed, [(corrupt(images.test_images, kind, severity), images.test_labels)]
        )
        for kind in CORRUPTIONS
        for severity in SEVERITIES
    ]
    ra = 100 * sum(shares) / len(shares)
    assert found["corruption_source"] == "generated (ten kinds for digits)"
    assert found["sa"] == pytest.approx(sa) and found["ra"] == pytest.approx(ra)
    assert found["hscore"] == pytest.approx(2 * sa * ra / (sa + ra))
    # 3 epochs of 2 steps of 20 images, and 4 of them once more through the auxiliary norms
    assert found["cost"] == 3 * 2 * (20 + 4) / 40
    identity = ("method", "arch", "dataset", "seed", "device")
    assert [found[name] for name in identity] == ["entprop", "wrn10_0.5", "digits", 0, "cpu"]
    assert found["images_per_second"] > 0 and found["seconds"] > 0
    assert rows(finished)[-1]["sa"] == pytest.approx(sa)
    assert spec.arch == "wrn10_0.5"
    plain = models.create("wrn10_0.5", num_classes=10, in_channels=1)
    with safe_open(finished / "model.safetensors", framework="pt") as file:
        plain.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    assert found["parameters"] == sum(parameter.numel() for parameter in plain.parameters())


def test_config_toml_runs_the_same_again(finished: Path, tmp_path: Path) -> None:
    config = finished / "config.toml"
    torch.rand(7)  # the caller's random numbers do not reach the run
    assert train.main(["--recipe", str(config), "--out", str(tmp_path)]) == 0
    assert model(tmp_path) == model(finished)
    tables = tomllib.loads(config.read_text())
    assert tables["method"]["name"] == "entprop" and tables["method"]["entprop"]["eps"] == 0.1


@pytest.mark.parametrize("flags", ["--drop-last", "--no-drop-last --batch-size 32"])
def test_the_command_ends_with_a_table(flags: str, run: Call, tmp_path: Path) -> None:
    said = run(tmp_path, "--method", "vanilla", *flags.split())
    for word in ("SA", "RA", "Hscore", "cost", "seconds", str(tmp_path), "epoch 3/3", "s left"):
        assert word in said
    assert rows(tmp_path)[0]["entropy_selected"] is None
    assert summary(tmp_path)["cost"] == 3.0  # every image was seen


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_settings_reach_the_optimizer(optimizer: str, tmp_path: Path) -> None:
    settings = {"optimizer": optimizer, "schedule": "step", "decay_every": 2, "lr": 0.01}
    small = {"method": "vanilla", "train_size": 200, "epochs": 3, "device": "cpu"}
    found = train_run(resolve("digits", **settings, **small, out=str(tmp_path)))  # type: ignore[arg-type]
    assert [row["lr"] for row in rows(tmp_path)] == pytest.approx([0.01, 0.01, 0.001])
    assert rows(tmp_path)[-1]["loss"] < rows(tmp_path)[0]["loss"]
    assert found.folder == str(tmp_path) and found.epochs == 3


def test_evaluate_agrees_with_the_summary(finished: Path, call: Call, tmp_path: Path) -> None:
    out, corruptions = tmp_path / "scores.json", summary(finished)["corruptions"]
    for source in (finished, finished / "checkpoint.pt", finished / "model.safetensors"):
        said = call(evaluate, [str(source), "--dataset", "digits", "--out", str(out)])
        scores = json.loads(out.read_text())
        for name in ("sa", "ra", "hscore", "corruptions"):
            assert scores[name] == summary(finished)[name]
    assert "gaussian" in said and "Hscore" in said
    assert evaluate.main([str(finished), "--norms", "aux", "--out", str(out)]) == 0
    scores = json.loads(out.read_text())
    assert scores["norms"] == "aux" and scores["corruptions"] != corruptions


def test_the_split_of_evaluate_is_the_runs(finished: Path, run: Call, tmp_path: Path) -> None:
    run(tmp_path, "--seed", "5")
    assert model(tmp_path) != model(finished)
    assert evaluate.main([str(tmp_path), "--out", str(tmp_path / "scores.json")]) == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["sa"] == summary(tmp_path)["sa"]


def test_metrics_are_strict_json(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_rows([{"epoch": 1, "loss": float("nan")}])
    folder.append_row({"epoch": 2, "loss": float("inf")})
    assert rows(tmp_path) == [{"epoch": 1, "loss": None}, {"epoch": 2, "loss": None}]
