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
from tests.tiny_data import layouts
from tests.tiny_data.archives import cifar_files, make_official, write_tar
from tests.tiny_data.layouts import LAYOUTS

from .test_resume import model, rows, stop_at

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("without_pictures")

FILES = ("cub", "pets", "cars", "imagenet")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def prepared(name: str, data_dir: Path, patch: pytest.MonkeyPatch) -> None:
    """A tiny data set in the layout that docs/data.md describes."""
    if name in LAYOUTS:
        LAYOUTS[name](data_dir)
        return
    form = FORMS[name][1]
    files = {f"{form.folder}/{file}": one for file, one in cifar_files(name, form).items()}
    make_official(patch, name, write_tar(data_dir / form.archive, files))


def arguments(name: str, data_dir: Path, out: Path, *more: str) -> list[str]:
    small = ["--arch", "wrn10_0.5", "--batch-size", "6", "--threads", "1", "--device", "cpu"]
    if name in FILES:
        small += ["--image-size", "32", "--workers", "1"]
    where = ["--data-dir", str(data_dir), "--out", str(out)]
    return ["--recipe", name, "--epochs", "1", *small, *where, *more]


def weights_file(path: Path, classes: int = 7) -> Path:
    torch.manual_seed(5)
    network = models.create("wrn10_0.5", num_classes=classes)
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize("name", [one for one in data_set_recipes() if one != "digits"])
def test_a_recipe_runs_from_its_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    prepared(name, tmp_path, monkeypatch)
    out = tmp_path / "run"
    more: tuple[str, ...] = ()
    if resolve(name).weights is not None:
        more = ("--weights", str(weights_file(tmp_path / "weights.pt")))
    if name == "cifar100":
        more += ("--train-size", "200")
    assert train.main(arguments(name, tmp_path, out, *more)) == 0
    said = capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["dataset"], summary["method"], summary["epochs"]) == (name, "entprop", 1)
    assert len(summary["corruptions"]) == 15
    if more and name in FILES:
        assert "classifier fc starts fresh: theirs has 7 classes, this data set 3" in said
    if name in FILES:
        assert "training images are read from files: 1 workers" in said
        assert "its scores do not stand beside published ones" in said
    _, spec = load_deployable(out / "model.safetensors")
    assert spec.normalize == resolve(name).normalize
    scores = tmp_path / "scores.json"
    again = ["--data-dir", str(tmp_path), "--device", "cpu", "--out", str(scores)]
    assert evaluate.main([str(out), *again]) == 0
    found = json.loads(scores.read_text())
    for key in ("sa", "ra", "hscore", "corruptions", "corruption_source"):
        assert found[key] == summary[key], key


def test_the_recipes_are_the_papers_tables() -> None:
    """shared/PAPER.md, settings of the tables."""
    for name in ("cifar10", "cifar100"):
        config = resolve(name)
        assert (config.epochs, config.batch_size, config.schedule) == (200, 128, "cosine")
        assert (config.optimizer, config.lr, config.augment) == ("sgd", 0.1, "crop-flip")
        assert config.options["mixup"] == 1
    for name in ("cub", "pets", "cars"):
        config = resolve(name)
        assert (config.epochs, config.batch_size, config.weights) == (100, 64, "pretrained")
        assert (config.optimizer, config.lr) == ("adam", 1e-4)
        assert (config.schedule, config.decay_every) == ("step", 10)
        assert config.options["mixup"] == 1
    config = resolve("imagenet")
    assert (config.epochs, config.batch_size, config.weights) == (105, 256, None)
    assert (config.optimizer, config.momentum, config.lr) == ("sgd", 0.9, 0.1)
    assert (config.schedule, config.decay_every) == ("step", 30)
    assert config.options["mixup"] == 0.2 == resolve("imagenet", method="mixup").options["mixup"]
    for name in recipe_names():
        assert resolve(name, dataset="digits").weight_decay == 5e-4


def test_a_run_on_files_resumes_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LAYOUTS["pets"](tmp_path)
    start = weights_file(tmp_path / "weights.pt")
    more = ("--weights", str(start), "--epochs", "2")
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train.main(arguments("pets", tmp_path, whole, *more)) == 0
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3, signal.SIGTERM)  # in the second epoch
        assert train.main(arguments("pets", tmp_path, out, *more)) == 143
    start.unlink()  # the checkpoint has what it needs
    assert train.main(arguments("pets", tmp_path, out, *more, "--resume")) == 0
    assert model(out) == model(whole)
    assert rows(out) == rows(whole)


def test_what_is_left_out_is_said(tmp_path: Path, capsys: Capture) -> None:
    path = layouts.folder(tmp_path / "set")
    (path / "train" / "class 1" / "1.jpg").write_bytes(b"")
    flags = arguments("imagenet", tmp_path, tmp_path / "run", "--dataset", "folder:set")
    assert train.main(flags) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 12 training images cannot be read" in said and "zero bytes; left out" in said


REFUSED = {
    "--recipe cifar100": r"--data-dir DIR: .* cifar-100-python.tar.gz",
    "--recipe cub --data-dir {tmp}": "CUB_200_2011.tgz",
    "--recipe cub --data-dir {tmp}/none": "none",
    "--recipe digits --image-size 32": "image_size = 32",
    "--recipe digits --augment resized-crop-flip": "'resized-crop-flip'",
    "--recipe digits --normalize imagenet": "normalize 'imagenet'",
    "--recipe digits --weights pretrained": "nobody publishes those of 'wrn10_0.5'",
    "--recipe digits --weights {tmp}/w.pt": "there is no such file",
    "--recipe imagenet --loader device --data-dir {tmp}/imagenet": "'device' needs images in",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_refused(flags: str, tmp_path: Path, capsys: Capture) -> None:
    layouts.imagenet(tmp_path / "imagenet")
    out = tmp_path / "run"
    args = [one.format(tmp=tmp_path) for one in flags.split()]
    assert train.main([*args, "--out", str(out), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert re.search(REFUSED[flags], error) and error.count("\n") == 1
    assert not out.exists()


def test_a_test_image_lost_during_the_run_ends_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    LAYOUTS["imagenet"](tmp_path)
    victim = next((tmp_path / "val").rglob("*.JPEG"))
    out = tmp_path / "run"

    def lose(*_: object) -> None:
        victim.unlink()

    monkeypatch.setattr(finish, "save_deployable", lose)  # after the last epoch
    assert train.main(arguments("imagenet", tmp_path, out)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and victim.name in error and "--resume evaluates" in error
    assert (out / "checkpoint.pt").exists()
