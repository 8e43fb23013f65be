"""Every recipe starts from its documented folder and runs an epoch; what it finds there is said."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from entprop_fast import models
from entprop_fast.lab.cli import evaluate, train
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS
from entprop_fast.lab.data.cifar import FORMS
from entprop_fast.lab.training import finish
from entprop_fast.lab.training.deploy import load_deployable
from entprop_fast.lab.training.recipe import data_set_recipes, recipe_names, resolve
from tests.lab.conftest import Call, assert_same, model, stop_at, summary
from tests.tiny_data import layouts
from tests.tiny_data.archives import (
    Bytes,
    cifar_files,
    cifar_images,
    make_official,
    write_folder,
    write_tar,
)
from tests.tiny_data.idx import tiny_fashion
from tests.tiny_data.layouts import LAYOUTS

pytestmark = pytest.mark.usefixtures("without_pictures")

FILES = ("cub", "pets", "cars", "imagenet")
SHARED = ("sa", "ra", "hscore", "corruptions", "corruption_source", "shifts")


def prepared(name: str, data_dir: Path, patch: pytest.MonkeyPatch) -> None:
    """A tiny data set in the layout that docs/data.md describes."""
    if name in LAYOUTS:
        LAYOUTS[name](data_dir)
        return
    if name == "fashion_mnist":
        tiny_fashion(data_dir, patch)
        return
    if name == "emoji":
        write_emoji(data_dir)
        return
    form = FORMS[name][1]
    files = {f"{form.folder}/{file}": one for file, one in cifar_files(name, form).items()}
    make_official(patch, name, write_tar(data_dir / form.archive, files))


def write_emoji(folder: Path) -> None:
    """Three classes, and a further test set."""
    images = np.random.default_rng(3).integers(0, 256, (60, 32, 32, 3), np.uint8)
    rows = np.arange(60)
    shift = np.where(rows >= 48, "artist", "")
    arrays = {"images": images, "labels": rows % 3, "test": rows < 12, "shift": shift}
    np.savez(folder / "emoji-32.npz", **arrays)  # type: ignore[arg-type]


def arguments(name: str, data_dir: Path, out: Path, *more: str) -> list[str]:
    small = "--epochs 1 --arch wrn10_0.5 --batch-size 6 --threads 1 --device cpu".split()
    if name in FILES:
        small += ["--image-size", "32", "--workers", "1"]
    return ["--recipe", name, *small, "--data-dir", str(data_dir), "--out", str(out), *more]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights for seven classes."""
    torch.manual_seed(5)
    torch.save(models.create("wrn10_0.5", num_classes=7).state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


@pytest.mark.parametrize("name", [one for one in data_set_recipes() if one != "digits"])
def test_a_recipe_runs_from_its_folder(
    name: str, weights: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(name, tmp_path, monkeypatch)
    out, scores = tmp_path / "run", tmp_path / "scores.json"
    sizes = {"cifar100": (200, None), "fashion_mnist": (60, 30), "emoji": (30, 9)}
    train_size, test_size = sizes.get(name, (None, None))
    more: tuple[str, ...] = () if train_size is None else ("--train-size", str(train_size))
    more += () if test_size is None else ("--test-size", str(test_size))
    tuned = resolve(name).weights is not None
    if tuned:
        more = ("--weights", str(weights))
    said = call(train, arguments(name, tmp_path, out, *more))
    found = summary(out)
    assert (found["dataset"], found["method"], found["epochs"]) == (name, "entprop", 1)
    assert len(found["corruptions"]) == 15
    assert list(found["shifts"]) == ["artist"] * (name == "emoji")
    fresh = "classifier fc starts fresh: theirs has 7 classes, this data set 3"
    assert (fresh in said) == tuned
    for words in (
        "training images are read from files: 1 workers",
        "its scores do not stand beside published ones",
    ):
        assert words in said or name not in FILES
    _, spec = load_deployable(out / "model.safetensors")
    assert spec.normalize == resolve(name).normalize
    again = ["--data-dir", str(tmp_path), "--device", "cpu", "--out", str(scores)]
    assert evaluate.main([str(out), *again]) == 0
    evaluated = json.loads(scores.read_text())
    assert {key: evaluated[key] for key in SHARED} == {key: found[key] for key in SHARED}


SGD, ADAM = {"optimizer": "sgd", "lr": 0.1}, {"optimizer": "adam", "lr": 1e-4}
CIFAR = {"epochs": 200, "batch_size": 128, "schedule": "cosine", "augment": "crop-flip", **SGD}
TUNED = {
    **{"epochs": 100, "batch_size": 64, "weights": "pretrained", **ADAM},
    **{"schedule": "step", "decay_every": 10},
}
PAPER = {  # shared/PAPER.md, settings of the tables
    **dict.fromkeys(("cifar10", "cifar100"), CIFAR),
    **dict.fromkeys(("cub", "pets", "cars"), TUNED),
    "imagenet": {
        **{"epochs": 105, "batch_size": 256, "weights": None, "momentum": 0.9, **SGD},
        **{"schedule": "step", "decay_every": 30},
    },
}


def test_the_recipes_are_the_papers_tables() -> None:
    for name, settings in PAPER.items():
        config = resolve(name)
        assert {one: getattr(config, one) for one in settings} == settings
        assert config.options["mixup"] == (0.2 if name == "imagenet" else 1)
    assert resolve("imagenet", method="mixup").options["mixup"] == 0.2
    for name in recipe_names():
        assert resolve(name, dataset="digits", augment="none").weight_decay == 5e-4


def test_a_run_on_files_resumes_where_it_stopped(weights: Path, tmp_path: Path) -> None:
    LAYOUTS["pets"](tmp_path)
    more = ("--weights", str(weights), "--epochs", "2", "--corruptions", "none")
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train.main(arguments("pets", tmp_path, whole, *more)) == 0
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3, signal.SIGTERM)  # in the second epoch
        assert train.main(arguments("pets", tmp_path, out, *more)) == 143
    weights.unlink()  # the checkpoint has what it needs
    assert train.main(arguments("pets", tmp_path, out, *more, "--resume")) == 0
    assert_same(out, whole)


def test_what_is_left_out_is_said(call: Call, tmp_path: Path) -> None:
    path = layouts.folder(tmp_path / "set")
    (path / "train" / "class 1" / "1.jpg").write_bytes(b"")
    more = ("--dataset", "folder:set", "--corruptions", "none")
    said = " ".join(call(train, arguments("imagenet", tmp_path, tmp_path / "run", *more)).split())
    assert "1 of 12 training images cannot be read" in said and "zero bytes; left out" in said


REFUSED = {
    "cifar100": r"--data-dir DIR: .* cifar-100-python.tar.gz",
    "cub --data-dir {tmp}": "CUB_200_2011.tgz",
    "cub --data-dir {tmp}/none": "none",
    "digits --image-size 32": "--image-size = 32",
    "digits --augment resized-crop-flip": "'resized-crop-flip'",
    "digits --normalize imagenet": "normalize 'imagenet'",
    "digits --weights pretrained": "nobody publishes those of 'wrn10_0.5'",
    "digits --weights {tmp}/w.pt": "there is no such file",
    "imagenet --loader device --data-dir {tmp}/imagenet": "'device' needs images in",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_refused(flags: str, call: Call, tmp_path: Path) -> None:
    layouts.imagenet(tmp_path / "imagenet")
    out = tmp_path / "run"
    words = [one.format(tmp=tmp_path) for one in ("--recipe", *flags.split(), "--device", "cpu")]
    assert re.search(REFUSED[flags], call(train, [*words, "--out", str(out)], 2))
    assert not out.exists()


def test_a_test_image_lost_during_the_run_ends_it_in_one_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LAYOUTS["imagenet"](tmp_path)
    victim, out = next((tmp_path / "val").rglob("*.JPEG")), tmp_path / "run"
    # After the last epoch.
    monkeypatch.setattr(finish, "save_deployable", lambda *_: victim.unlink())
    error = call(train, arguments("imagenet", tmp_path, out), 1)
    assert victim.name in error and "--resume evaluates" in error
    assert (out / "checkpoint.pt").exists()


def by_brightness(pixels: Bytes, labels: Bytes) -> tuple[Bytes, Bytes]:
    """The same labels, of images that a few epochs can tell apart."""
    return (pixels // 8 + 22 * labels[:, None]).astype(np.uint8), labels


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tiny CIFAR-10, and CIFAR-10-C made of its test images, each kind and severity darker."""
    form = FORMS["cifar10"][1]
    train_split, (pixels, labels) = (by_brightness(*one) for one in cifar_images("cifar10"))
    splits = (train_split, (pixels, labels))
    write_folder(tmp_path / form.folder, cifar_files("cifar10", form, splits))
    make_official(monkeypatch, "cifar10")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    root = tmp_path / "CIFAR-10-C"
    root.mkdir()
    for number, kind in enumerate(COMMON_KINDS):
        darker = [(images * (1 - 0.1 * severity)).astype(np.uint8) for severity in SEVERITIES]
        darker[number % 5] = images
        np.save(root / f"{kind}.npy", np.concatenate(darker))
    np.save(root / "labels.npy", np.tile(labels, len(SEVERITIES)))
    small = "--recipe cifar10 --method vanilla --arch wrn10_0.5 --batch-size 25 --epochs 12"
    where = ["--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]
    return [*small.split(), *"--threads 1 --device cpu".split(), *where]


def test_official_files_are_what_a_run_is_scored_on(flags: list[str], tmp_path: Path) -> None:
    out, scores = tmp_path / "run", tmp_path / "scores.json"

    def scored(*more: str) -> dict[str, Any]:
        """What the run says of itself, which the evaluate command says too."""
        where = ["--data-dir", str(tmp_path), "--device", "cpu", "--out", str(scores)]
        assert evaluate.main([str(out), *where, *more]) == 0
        evaluated, found = json.loads(scores.read_text()), summary(out)
        assert {name: evaluated[name] for name in SHARED} == {name: found[name] for name in SHARED}
        return found

    assert train.main(flags) == 0
    official, network = scored(), model(out)
    assert official["corruption_source"] == "official CIFAR-10-C"
    assert len({value for values in official["corruptions"].values() for value in values}) > 2
    # A finished run is only evaluated again; its network stays.
    assert train.main([*flags, "--resume", "--corruptions", "generated"]) == 0
    assert model(out) == network
    generated = scored("--corruptions", "generated")
    assert generated["corruption_source"].startswith("generated (CIFAR-C's strengths, seed 0")
    assert generated["sa"] == official["sa"]
    assert generated["corruptions"] != official["corruptions"]


def test_a_set_that_cannot_be_used_is_refused_before_the_first_step(
    flags: list[str], call: Call, tmp_path: Path
) -> None:
    root = tmp_path / "CIFAR-10-C"
    order, whole = np.load(root / "labels.npy"), (root / "fog.npy").read_bytes()
    cases: dict[str, Callable[[], Any]] = {
        "fog.npy cannot be read": lambda: (root / "fog.npy").write_bytes(whole[:500]),
        "the labels are not those of cifar10's test images": lambda: (
            (root / "fog.npy").write_bytes(whole),
            # As often, in another order.
            np.save(root / "labels.npy", np.tile(np.roll(order[:10], 1), 5)),
        ),
        "CIFAR-10-C was looked for": lambda: root.rename(tmp_path / "elsewhere"),
    }
    for message, damage in cases.items():
        damage()
        assert message in call(train, [*flags, "--corruptions", "official"], 2)
        assert not (tmp_path / "run").exists()
    # Without the word it is no error: the run says what it takes instead, before it begins.
    said = call(train, [*flags, "--epochs", "1"])
    assert said.index("its corruptions are generated") < said.index("epoch 1/")
    assert said.count("its corruptions are generated") == 1  # the suite is opened once


def test_without_corruptions_there_is_no_ra(run: Call, tmp_path: Path) -> None:
    run(tmp_path, "--epochs", "1")
    (tmp_path / "corruptions.png").write_bytes(b"of the first evaluation")
    said = run(tmp_path, "--epochs", "1", "--resume", "--corruptions", "none")
    assert "corruptions behind RA: none" in said
    (line,) = [one.split() for one in said.splitlines() if one.startswith("entprop  ")]
    assert line[2:4] == ["–", "–"]
    found = summary(tmp_path)
    assert (found["ra"], found["hscore"], found["corruptions"]) == (None, None, {})
    assert found["corruption_source"] == "" and found["sa"] > 0
    assert not (tmp_path / "corruptions.png").exists()
