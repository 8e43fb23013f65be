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
from tests.lab.conftest import Args

PNG = b"\x89PNG\r\n"

pytestmark = pytest.mark.usefixtures("without_pictures")


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_folder_of_a_run(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.toml",
        "metrics.jsonl",
        "checkpoint.pt",
        "checkpoint.prev.pt",
        "model.safetensors",
        "summary.json",
        "curves.png",
        "corruptions.png",
        "examples.png",
    }
    assert all(path.read_bytes().startswith(PNG) for path in finished.glob("*.png"))


def test_a_row_for_each_epoch(finished: Path) -> None:
    found = rows(finished)
    assert [row["epoch"] for row in found] == [1, 2, 3]
    assert [row["step"] for row in found] == [2, 4, 6]
    for row in found:
        assert row["gap"] == pytest.approx(row["train_accuracy"] - row["sa"])
        assert row["entropy_selected"] >= row["entropy_unselected"] > 0
        assert min(row["loss"], row["aux_loss"], row["lr"], row["images_per_second"]) > 0


def test_the_summary_is_the_deployed_networks(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    model, spec = load_deployable(finished / "model.safetensors")
    images = load("digits", seed=0)
    sa = 100 * metrics.accuracy(model, [(images.test_images, images.test_labels)])
    shares = [
        metrics.accuracy(model, [(corrupt(images.test_images, kind, severity), images.test_labels)])
        for kind in CORRUPTIONS
        for severity in SEVERITIES
    ]
    ra = 100 * sum(shares) / len(shares)
    assert summary["corruption_source"] == "generated (ten kinds for digits)"
    assert summary["sa"] == pytest.approx(sa) and summary["ra"] == pytest.approx(ra)
    assert summary["hscore"] == pytest.approx(2 * sa * ra / (sa + ra))
    # 3 epochs of 2 steps of 20 images, and 4 of them once more through the auxiliary norms
    assert summary["cost"] == 3 * 2 * (20 + 4) / 40
    identity = ("method", "arch", "dataset", "seed", "device")
    assert [summary[name] for name in identity] == ["entprop", "wrn10_0.5", "digits", 0, "cpu"]
    assert summary["images_per_second"] > 0 and summary["seconds"] > 0
    assert rows(finished)[-1]["sa"] == pytest.approx(sa)
    assert spec.arch == "wrn10_0.5"


def test_the_deployed_network_is_a_plain_one(finished: Path) -> None:
    plain = models.create("wrn10_0.5", num_classes=10, in_channels=1)
    with safe_open(finished / "model.safetensors", framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}
    plain.load_state_dict(state)
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["parameters"] == sum(parameter.numel() for parameter in plain.parameters())


def test_config_toml_runs_the_same_again(finished: Path, tmp_path: Path) -> None:
    config = finished / "config.toml"
    again = tmp_path / "again"
    assert train.main(["--recipe", str(config), "--out", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == (
        finished / "model.safetensors"
    ).read_bytes()
    tables = tomllib.loads(config.read_text())
    assert tables["method"]["name"] == "entprop" and tables["method"]["entprop"]["eps"] == 0.1


def test_the_seed_changes_the_run(finished: Path, tiny: Args, tmp_path: Path) -> None:
    assert train.main(tiny(tmp_path / "run", "--seed", "1")) == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != (
        finished / "model.safetensors"
    ).read_bytes()


def test_the_command_ends_with_a_table(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train.main(tiny(out, "--method", "vanilla", "--drop-last")) == 0
    printed = capsys.readouterr().out
    for word in ("SA", "RA", "Hscore", "cost", "seconds", str(out), "epoch 3/3", "s left"):
        assert word in printed
    assert rows(out)[0]["entropy_selected"] is None
    assert json.loads((out / "summary.json").read_text())["cost"] == 3.0


def test_without_drop_last_every_image_is_seen(tiny: Args, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = tiny(out, "--method", "mixup", "--no-drop-last", "--batch-size", "32")
    assert train.main(arguments) == 0
    assert json.loads((out / "summary.json").read_text())["cost"] == 3.0


@pytest.mark.parametrize(("optimizer", "schedule"), [("adam", "step"), ("adamw", "cosine")])
def test_other_optimizers_and_schedules_train(
    optimizer: str, schedule: str, tmp_path: Path
) -> None:
    config = resolve(
        "digits",
        method="vanilla",
        train_size=200,
        epochs=3,
        optimizer=optimizer,
        schedule=schedule,
        decay_every=2,
        lr=0.01,
        device="cpu",
        out=str(tmp_path / "run"),
    )
    summary = train_run(config)
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert losses[-1] < losses[0]
    assert summary.folder == str(tmp_path / "run") and summary.epochs == 3


def test_evaluate_agrees_with_the_summary(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    out = tmp_path / "scores.json"
    for source in (finished, finished / "checkpoint.pt", finished / "model.safetensors"):
        assert evaluate.main([str(source), "--dataset", "digits", "--out", str(out)]) == 0
        scores = json.loads(out.read_text())
        for name in ("sa", "ra", "hscore", "corruptions"):
            assert scores[name] == summary[name]
    printed = capsys.readouterr().out
    assert "gaussian" in printed and "Hscore" in printed


def test_evaluate_through_the_auxiliary_norms(finished: Path, tmp_path: Path) -> None:
    scores = {}
    for norms in ("main", "aux"):
        out = tmp_path / f"{norms}.json"
        assert evaluate.main([str(finished), "--norms", norms, "--out", str(out)]) == 0
        scores[norms] = json.loads(out.read_text())
    assert scores["aux"]["norms"] == "aux"
    assert scores["aux"]["corruptions"] != scores["main"]["corruptions"]


def test_the_split_of_evaluate_is_the_runs(tiny: Args, tmp_path: Path) -> None:
    assert train.main(tiny(tmp_path / "run", "--seed", "5")) == 0
    out = tmp_path / "scores.json"
    assert evaluate.main([str(tmp_path / "run"), "--out", str(out)]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert json.loads(out.read_text())["sa"] == summary["sa"]


def test_evaluate_uses_the_previous_checkpoint_and_says_so(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("checkpoint.pt", "checkpoint.prev.pt"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    damaged = bytearray((tmp_path / "checkpoint.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "checkpoint.pt").write_bytes(damaged)
    assert evaluate.main([str(tmp_path)]) == 0
    assert "checkpoint.prev.pt" in capsys.readouterr().out
    assert (tmp_path / "checkpoint.pt").read_bytes() == damaged


def test_the_callers_random_numbers_do_not_reach_the_run(tmp_path: Path) -> None:
    finals = []
    for name in ("a", "b"):
        torch.rand(7)
        config = resolve(
            "digits", train_size=20, batch_size=20, epochs=1, device="cpu", out=str(tmp_path / name)
        )
        train_run(config)
        finals.append((tmp_path / name / "model.safetensors").read_bytes())
    assert finals[0] == finals[1]


def test_metrics_are_strict_json(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_rows([{"epoch": 1, "loss": float("nan")}])
    folder.append_row({"epoch": 2, "loss": float("inf")})
    assert rows(tmp_path) == [{"epoch": 1, "loss": None}, {"epoch": 2, "loss": None}]
