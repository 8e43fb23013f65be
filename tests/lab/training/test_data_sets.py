"""Every recipe starts from its documented folder and runs an epoch; what it finds there is said."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
import torch

from entprop_fast import models
from entprop_fast.lab.cli import evaluate, train
from entprop_fast.lab.data.cifar import FORMS
from entprop_fast.lab.training import finish
from entprop_fast.lab.training.deploy import load_deployable
from entprop_fast.lab.training.recipe import data_set_recipes, recipe_names, resolve
from tests.lab.conftest import Call, assert_same, stop_at, summary
from tests.tiny_data import layouts
from tests.tiny_data.archives import cifar_files, make_official, write_tar
from tests.tiny_data.layouts import LAYOUTS

pytestmark = pytest.mark.usefixtures("without_pictures")

FILES = ("cub", "pets", "cars", "imagenet")


def prepared(name: str, data_dir: Path, patch: pytest.MonkeyPatch) -> None:
    """A tiny data set in the layout that docs/data.md describes."""
    if name in LAYOUTS:
        LAYOUTS[name](data_dir)
        return
    form = FORMS[name][1]
    files = {f"{form.folder}/{file}": one for file, one in cifar_files(name, form).items()}
    make_official(patch, name, write_tar(data_dir / form.archive, files))


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
    more = ("--train-size", "200") if name == "cifar100" else ()
    tuned = resolve(name).weights is not None
    if tuned:
        more = ("--weights", str(weights))
    said = call(train, arguments(name, tmp_path, out, *more))
    found = summary(out)
    assert (found["dataset"], found["method"], found["epochs"]) == (name, "entprop", 1)
    assert len(found["corruptions"]) == 15
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
    for key in ("sa", "ra", "hscore", "corruptions", "corruption_source"):
        assert evaluated[key] == found[key], key


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
        assert resolve(name, dataset="digits").weight_decay == 5e-4


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
    "digits --image-size 32": "image_size = 32",
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
