"""FOUND N1: the recipe follows the data, one way for all commands, and the first lines say so."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from entprop_fast import models
from entprop_fast.lab.cli import announce, compare, study, train
from entprop_fast.lab.corruptions import suites
from entprop_fast.lab.corruptions.common import COMMON_KINDS
from entprop_fast.lab.data import load
from entprop_fast.lab.data.datasets import usual_image_size
from entprop_fast.lab.experiments.studies import STUDIES
from entprop_fast.lab.experiments.studies.form import Options, Table
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.deploy import network_for
from entprop_fast.lab.training.follow_data import follow_data
from entprop_fast.lab.training.recipe import data_set_recipes, resolve
from entprop_fast.methods import METHODS, create_method, method_options
from tests.lab.conftest import Call, summary

pytestmark = pytest.mark.usefixtures("without_pictures")

MACHINE = "--workers 0 --threads 1 --device cpu".split()
SMALL = ["--arch", "wrn10_0.5", "--epochs", "1", "--batch-size", "6", "--corruptions", "none"]


class Enough(Exception):
    """Ends a command once it has come far enough."""


def pictures(path: Path, side: int = 24, each: int = 6) -> str:
    """JPEGs, bright above or below on dark ground, in train/ and test/."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, top in (("above", 0), ("below", side // 2)):
            (path / split / name).mkdir(parents=True)
            for number in range(each):
                image = Image.new("RGB", (side, side), tuple(generator.integers(0, 60, 3).tolist()))
                bright = tuple(generator.integers(150, 256, 3).tolist())
                image.paste(bright, (0, top, side, top + side // 2))
                image.save(path / split / name / f"{number}.jpg", quality=95)
    return f"folder:{path}"


@pytest.mark.parametrize(
    ("dataset", "weights", "recipe"),
    [
        (None, None, "digits"),
        (None, "w.pt", "finetune"),
        ("digits", "w.pt", "digits"),
        ("cub", "w.pt", "cub"),
        ("imagenet", None, "imagenet"),
        ("folder:birds", None, "folder"),
        ("folder:birds", "random", "folder"),
        ("folder:birds", "pretrained", "finetune"),
        ("folder:birds", "w.pt", "finetune"),
    ],
)
def test_the_recipe_of_a_data_set(dataset: str | None, weights: str | None, recipe: str) -> None:
    given = {"dataset": dataset, "weights": weights, "data_dir": "nowhere"}
    assert follow_data(None, given) == (recipe, given)  # no size of a folder that cannot be read
    assert follow_data("pets", given)[0] == "pets"


def test_what_is_no_data_set(tmp_path: Path) -> None:
    """Refused before a line of its settings is said, which would be another data set's."""
    for name, said in (("folder", "dataset 'folder'"), (str(tmp_path), f"folder:{tmp_path}")):
        with pytest.raises(ValueError, match=said):
            follow_data(None, {"dataset": name})


def test_the_two_recipes_are_sane() -> None:
    scratch, tuned = (resolve(name, dataset="folder:x") for name in ("folder", "finetune"))
    for config in (scratch, tuned):
        said = (config.arch, config.method, config.augment, config.drop_last)
        assert said == ("resnet18", "entprop", "resized-crop-flip", False)
        assert announce.radius(config) == 1 / 255
        assert not list(announce.warnings([config]))
    assert (scratch.weights, scratch.optimizer) == (None, "sgd")
    for name in ("weights", "optimizer", "normalize", "augment"):
        assert getattr(tuned, name) == getattr(resolve("cub"), name)
    assert tuned.image_size == 224
    with pytest.raises(ValueError, match="--dataset folder:PATH"):
        resolve("folder")


@pytest.mark.parametrize(
    ("side", "size"), [(32, 32), (28, 28), (30, 32), (97, 96), (200, 224), (300, 224)]
)
def test_images_are_seen_at_their_own_size(side: int, size: int, tmp_path: Path) -> None:
    """Small files are not blown up to 224 pixels, large ones are made as small."""
    given: dict[str, Any] = {"dataset": pictures(tmp_path, side, each=1)}
    assert usual_image_size(given["dataset"], None) == size
    _, settings = follow_data(None, given)
    assert settings["image_size"] == size
    assert settings.get("augment") == ("crop-flip" if size <= 64 else None)
    over = given | {"image_size": 48, "augment": "none"}
    assert follow_data(None, over)[1] == over  # flags win
    tuned, fixed = given | {"weights": "w.pt"}, given | {"arch": "timm:vit_tiny_patch16_224"}
    assert follow_data(None, tuned) == ("finetune", tuned)
    assert follow_data(None, fixed) == ("folder", fixed)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 3])
def test_the_radius_that_is_said_is_the_methods(method: str, n: int) -> None:
    """eps follows from n and alpha where it is not named."""
    over: dict[str, Any] = {"n": n} if "n" in method_options(method) else {}
    config = resolve("folder", dataset="digits", augment="augmix", method=method, **over)
    spec = network_for("wrn10_0.5", load("digits"), 0)
    model = spec.build_for(method, config.options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {k: v for k, v in config.options.items() if k != "criterion"}
    made = create_method(method, model, optimizer, **options)
    assert announce.radius(config) == getattr(made, "eps", None)


@pytest.mark.parametrize(
    ("eps", "side", "warned"),
    [
        ("1/255", 224, False),
        ("8/255", 32, False),
        ("25.5/255", 224, True),
        ("25.5/255", 8, False),
        ("1/255", 8, True),
        ("0.01/255", 32, True),
        ("0/255", 32, False),
    ],
)
def test_a_radius_far_from_the_usual_is_warned_of_once(eps: str, side: int, warned: bool) -> None:
    where = {"dataset": "digits"} if side == 8 else {"dataset": "folder:x", "image_size": side}
    config = resolve("folder", eps=eps, **where)
    found = list(announce.warnings([config, config]))
    assert len(found) == warned
    assert all(f"for images of {side} pixels" in text for text in found)


def test_weights_that_a_high_rate_unlearns() -> None:
    """A recipe from scratch, given weights."""
    (found,) = announce.warnings([resolve("cifar10", weights="w.pt")])
    assert "sgd at lr 0.1" in found and "--recipe finetune" in found
    assert not list(announce.warnings([resolve("cifar10", weights="w.pt", lr=0.001)]))
    assert not list(announce.warnings([resolve(name) for name in data_set_recipes()]))


def test_train_says_its_recipe_and_learns(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of small JPEGs, end to end, with the recipe's own settings but a network and a
    number of epochs that a test can afford."""
    monkeypatch.setattr(suites, "COMMON_KINDS", COMMON_KINDS[:1])  # of 15
    out = tmp_path / "run"
    flags = ["--dataset", pictures(tmp_path / "shapes", each=24), "--arch", "wrn10_1", *MACHINE]
    flags += ["--epochs", "12", "--batch-size", "16", "--out", str(out)]
    said = " ".join(call(train, flags).split())
    for words in (
        "recipe folder: wrn10_1, 24 pixels, augment crop-flip, 12 epochs, batches of 16",
        "sgd, lr 0.05 (onecycle)",
        "method entprop: k 0.2, n 1, eps 1/255, alpha 1/255, mixup 0.2",
    ):
        assert words in said
    saved = tomllib.loads((out / "config.toml").read_text())
    assert (saved["image_size"], saved["augment"]) == (24, "crop-flip")  # complete, re-runnable
    assert summary(out)["sa"] >= 75  # 50 by chance
    assert train.main([*flags, "--resume"]) == 0  # its own settings


def test_weights_and_other_recipes_are_said(call: Call, tmp_path: Path) -> None:
    """Adam's 5e-4 instead of digits' 0.1 of SGD; digits' eps on photographs."""
    weights = str(tmp_path / "w.pt")
    torch.save(models.create("wrn10_0.5", num_classes=7).state_dict(), weights)
    flags = ["--dataset", pictures(tmp_path / "shapes", 32), *SMALL, *MACHINE, "--out"]
    tuned = ["--weights", weights, "--image-size", "32"]
    said = call(train, [*flags, str(tmp_path / "a"), *tuned])
    assert f"recipe finetune: wrn10_0.5 from {weights}, 32 pixels" in said
    assert "adam, lr 0.0005 (onecycle)" in said and "eps 1/255" in said
    said = call(train, [*flags, str(tmp_path / "b"), "--recipe", "digits"])
    assert said.count("eps 25.5/255 is far from the usual") == 1


def test_compare_and_study_follow_the_data_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, seen = pictures(tmp_path / "shapes"), list[Config]()
    flags = ["--dataset", dataset, "--device", "cpu", "--out", str(tmp_path / "out")]

    def kept(runs: Any, *_: object, **__: object) -> Any:
        seen.extend(run.config for run in runs)
        raise Enough

    monkeypatch.setattr(compare, "run_all", kept)
    with pytest.raises(Enough):
        compare.main(["--methods", "vanilla", "entprop:n=3", *flags])
    said = capsys.readouterr().out
    assert said.count("recipe folder: resnet18, 24 pixels, augment crop-flip, 100 epochs") == 1
    assert "vanilla: method vanilla\n" in said and "n 3, eps 4/255, alpha 1/255" in said
    assert {(config.image_size, config.augment, config.lr) for config in seen} == {
        (24, "crop-flip", 0.05)
    }

    def measure(options: Options, reporter: object) -> Table:
        assert options.recipe == "folder"
        follows = {"image_size": 24, "augment": "crop-flip"}
        assert options.overrides == {"dataset": dataset} | follows
        raise Enough

    monkeypatch.setitem(STUDIES, "ratio", replace(STUDIES["ratio"], measure=measure))
    with pytest.raises(Enough):
        study.main(["ratio", *flags])
    assert "recipe folder: resnet18, 24 pixels" in capsys.readouterr().out
