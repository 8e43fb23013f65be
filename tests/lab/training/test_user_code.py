"""Networks and images of one's own in the commands, and no code that only a file names."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast.lab.cli import evaluate, study, train
from entprop_fast.lab.experiments.comparison import variants
from entprop_fast.lab.experiments.comparison.plan import finished_summary, resolve_runs
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.fit import fit
from entprop_fast.lab.training.follow_data import follow_data
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.user_code import make_images, named, network_maker
from tests.lab.conftest import Call, model, rows, summary

pytestmark = pytest.mark.usefixtures("without_pictures")

CODE = """
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset
from entprop_fast.lab.data import ImageData

open("imported", "a").write("x")

def net(num_classes, in_channels=3):
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, num_classes)
    )

def blind(num_classes): return net(num_classes)
def greedy(**sizes): return net(**sizes)
def no_classes(): return net(4)
def no_network(num_classes): return 3
def without_norms(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(108, num_classes))
def of_colours(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))
def broken(num_classes): raise KeyError("width")

generator = torch.Generator().manual_seed(1)
labels = torch.arange(40) % 4
images = 0.2 * torch.rand(40, 3, 6, 6, generator=generator) + 0.2 * labels.view(-1, 1, 1, 1)

def tensors(): return (images, labels), (images[:8], labels[:8])
def bytes_(): return ((255 * images).byte(), labels), ((255 * images[:8]).byte(), labels[:8])
def datasets(): return TensorDataset(images, labels), TensorDataset(images[:8], labels[:8])
def mixed(): return [(images, labels), TensorDataset(images[:8], labels[:8])]
def with_names(names): return {**dict(zip(("train", "test"), mixed())), "class_names": names}
def dictionary(): return with_names([*"abcd"])
def image_set(): return ImageData("own", images, labels, images[:8], labels[:8], 4)
def one(): return images, labels
def three(): return images, labels, 3
def nothing(): return None
def misspelt(): return {"train": (images, labels), "val": (images, labels)}
def normalised(): return (images - 0.5, labels), (images, labels)
def by_fit():
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in ([0.2, 0.5, 0.7], [0.1, 0.2, 0.3]))
    return ((images - mean) / std, labels), ((images[:8] - mean) / std, labels[:8])
def too_bright(): return (9 * images, labels), (9 * images, labels)
def few_names(): return with_names(["a", "b"])
def text(): return with_names("abcd")
def grey_test(): return (images, labels), (images[:8, :1], labels[:8])
def small_test(): return (images, labels), TensorDataset(images[:8, :, :4], labels[:8])
def grey_set(): return ImageData("own", images, labels, images[:8, :1], labels[:8], 4)
def smaller(): return (images[..., :4], labels), (images[..., :4], labels)
def leaves(): raise SystemExit(0)
def leaves_network(num_classes): raise SystemExit(0)
def half(num_classes): return net(num_classes).bfloat16()

class Rows(Dataset):
    def __init__(self, labels): self.labels = labels
    def __len__(self): return len(self.labels)
    def __getitem__(self, row): return images[row], int(self.labels[row])

def higher(): return Rows(labels + 5), TensorDataset(images[:8], labels[:8])
def rows(): return Rows(labels), TensorDataset(images[:8], labels[:8])
def subset():
    whole = Rows(labels)
    whole.classes = ["a", "b", "c", "d"]
    return Subset(whole, range(32)), Subset(whole, range(32, 40))
def few(): return Rows(labels[:16]), (images[:4], labels[:4])
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current directory."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield name
    sys.modules.pop(name, None)


def words(code: str, *more: str, data: str = "tensors") -> list[str]:
    own = ["--model", f"{code}:net", "--data", f"{code}:{data}", "--corruptions", "none"]
    small = ["--epochs", "2", "--batch-size", "8", "--threads", "1", "--device", "cpu"]
    return [*own, *small, *more]


def times_imported() -> int:
    path = Path("imported")
    return len(path.read_text()) if path.exists() else 0


def test_a_run_of_ones_own_is_trained_resumed_and_evaluated(code: str, call: Call) -> None:
    out = Path("run")
    call(train, words(code, "--out", str(out)))
    assert (summary(out)["arch"], summary(out)["dataset"]) == (
        f"model:{code}:net",
        f"data:{code}:tensors",
    )
    assert len(rows(out)) == 2
    own = ["--model", f"{code}:net", "--data", f"{code}:tensors"]
    again = words(code, "--out", "again")
    call(train, [*again, "--resume"])
    assert model(out) == model(Path("again"))
    call(train, ["--resume", "--out", "again", *own])  # it is finished: evaluated once more
    call(evaluate, ["run", *own, "--corruptions", "none", "--out", "scores.json"])
    assert json.loads(Path("scores.json").read_text())["sa"] == summary(out)["sa"]


def test_what_fit_left_is_evaluated_by_its_normalisation(
    code: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images in [0, 1] go through what those of `fit` had been through; those that did, do not."""
    monkeypatch.syspath_prepend(".")
    module = importlib.import_module(code)
    mean, std = torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.1, 0.2, 0.3])
    images = (module.images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    network = module.net(4)
    found = fit(
        network,
        (images, module.labels),
        (images[:8], module.labels[:8]),
        normalization=(mean, std),
        epochs=6,
        batch_size=8,
        method="vanilla",
        corruptions="none",
        out="run",
        verbose=False,
        log=(),
    )
    assert found.sa != 25.0
    own = ["--model", f"{code}:net", "--data", f"{code}:tensors", "--corruptions", "none"]
    for file in ("run", "run/checkpoint.pt", "run/model.safetensors"):
        call(evaluate, [file, *own, "--out", "scores.json"])
        assert json.loads(Path("scores.json").read_text())["sa"] == found.sa
    own[3] = f"{code}:by_fit"
    call(evaluate, ["run", *own, "--out", "scores.json"])
    assert json.loads(Path("scores.json").read_text())["sa"] == found.sa
    own[3] = f"{code}:too_bright"
    assert "input_range" in call(evaluate, ["run", *own], 2)


def test_no_code_is_run_because_a_file_names_it(code: str, call: Call) -> None:
    call(train, words(code, "--out", "run"))
    sys.modules.pop(code)
    before = times_imported()
    own_model, own_data = ["--model", f"{code}:net"], ["--data", f"{code}:tensors"]
    refused: list[tuple[Any, list[str], list[str], str]] = [
        (train, ["--resume", "--out", "run"], own_model, "--data"),
        (train, ["--recipe", "run/config.toml", "--out", "new"], own_model, "--data"),
        (evaluate, ["run"], own_data, "--model"),
        (evaluate, ["run/checkpoint.pt"], own_data, "--model"),
        (evaluate, ["run/model.safetensors"], own_data, "--model"),
    ]
    for command, given, _, _ in refused:
        call(command, given, 2)
        assert times_imported() == before
    sys.modules.pop(code, None)
    for command, given, half, missing in refused:
        assert missing in call(command, [*given, *half], 2)
    assert f"--data {code}:tensors" in call(train, [*refused[0][1], *own_model], 2)
    assert not Path("new").exists()
    toml = Path("run/config.toml").read_text()
    assert "imports" not in toml
    Path("planted.toml").write_text(f'imports = ["{code}:net", "{code}:tensors"]\n{toml}')
    assert "imports" in call(train, ["--recipe", "planted.toml", "--out", "new"], 2)


def test_every_form_of_data_trains(code: str) -> None:
    losses = {}
    for data in ("tensors", "datasets", "rows", "mixed", "dictionary", "image_set", "bytes_"):
        settings = named(f"{code}:net", f"{code}:{data}", {"epochs": 1, "corruptions": "none"})
        settings |= {"workers": 0, "device": "cpu", "batch_size": 8, "out": data}
        found = train_run(resolve("digits", **settings))
        assert found.train_size == 40 and found.sa is not None
        losses[data] = rows(Path(data))[0]["loss"]
    assert losses.pop("bytes_") == pytest.approx(losses["tensors"], rel=0.1)
    assert set(losses.values()) == {losses["tensors"]}


def test_a_comparison_carries_it_into_its_processes(code: str) -> None:
    settings = named(f"{code}:net", f"{code}:tensors", {"epochs": 1, "corruptions": "none"})
    source, settings = follow_data(None, settings | {"device": "cpu", "batch_size": 8})
    rows_of = variants.parse_all(["entprop", "vanilla"])
    runs = pickle.loads(pickle.dumps(resolve_runs(source, rows_of, [0], settings, out="both")))
    for run in runs:
        record = run.work(run.config, Reporter.quiet())
        assert record["arch"] == f"model:{code}:net" and record["sa"] > 0
        assert finished_summary(run) is not None


def test_a_study_takes_it(code: str, call: Call) -> None:
    own = ["--model", f"{code}:net", "--data", f"{code}:few"]
    small = ["--epochs", "1", "--seeds", "0", "--workers", "1"]
    small += ["--corruptions", "digits", "--device", "cpu", "--out", "study"]
    call(study, ["components", *own, *small])
    assert Path("study/table.md").exists()
    assert "--model" in call(study, ["score", *own, "--out", "score"], 2)


WRONG = [
    (["--model", "CODE:net", "--arch", "resnet18"], "--arch"),
    (["--data", "CODE:tensors", "--dataset", "digits"], "--dataset"),
    (["--model", "CODE"], "MODULE:FUNCTION"),
    (["--model", "CODE.py:net"], "imported"),
    (["--model", "../CODE:net"], "MODULE:FUNCTION"),
    (["--model", "nowhere_at_all:net"], "imported"),
    (["--model", "CODE:missing"], "missing"),
    (["--model", "CODE:labels"], "function"),
    (["--model", "CODE:no_classes"], "num_classes"),
    (["--model", "CODE:no_network"], "int"),
    (["--model", "CODE:broken"], "KeyError"),
    (["--model", "CODE:of_colours"], "'digits': --data MODULE:FUNCTION"),
    (["--model", "CODE:without_norms", "--data", "CODE:tensors"], "--model CODE:without_norms"),
    (["--model", "CODE:without_norms", "--data", "CODE:tensors"], "--method vanilla"),
    (["--data", "CODE:one"], "train"),
    (["--data", "CODE:three"], "tuple"),
    (["--data", "CODE:nothing"], "NoneType"),
    (["--data", "CODE:misspelt"], "val"),
    (["--data", "CODE:normalised"], "input_range"),
    (["--data", "CODE:few_names"], "class_names"),
    (["--data", "CODE:text"], "class_names"),
    (["--data", "CODE:grey_test"], "[1, 6, 6]"),
    (["--data", "CODE:small_test"], "[3, 4, 6]"),
    (["--data", "CODE:grey_set"], "[1, 6, 6]"),
    (["--data", "CODE:leaves"], "SystemExit"),
    (["--model", "CODE:leaves_network"], "SystemExit"),
    (["--model", "CODE:half", "--data", "CODE:tensors"], "bfloat16"),
    (["--data", "CODE:higher"], "label"),
    (["--data", "CODE:tensors", "--image-size", "8"], "--image-size=8"),
    (["--data", "CODE:datasets", "--train-size", "8"], "--train-size=8"),
    (["--data", "CODE:datasets", "--validation", "0.2"], "validation"),
    (["--arch", "model:CODE:net"], "--model CODE:net"),
    (["--dataset", "data:CODE:tensors"], "--data CODE:tensors"),
    (
        ["--arch", "model:CODE:net", "--dataset", "data:CODE:rows"],
        "--model CODE:net --data CODE:rows",
    ),
]


@pytest.mark.parametrize(("given", "named"), WRONG)
def test_what_cannot_be_used_is_named(given: list[str], named: str, code: str, call: Call) -> None:
    mine = [word.replace("CODE", code) for word in given]
    small = ["--epochs", "1", "--workers", "0", "--corruptions", "none", "--device", "cpu"]
    found = call(train, [*mine, *small, "--out", "run"], 2)
    assert named.replace("CODE", code) in found
    assert not Path("run").exists()


def test_the_sizes_that_a_function_takes(code: str) -> None:
    for function, channels in (("net", 1), ("greedy", 1), ("blind", 3)):
        made: Any = network_maker(f"{code}:{function}")(num_classes=7, in_channels=1)
        assert (made[0].in_channels, made[3].out_features) == (channels, 7)


def test_class_names_reach_the_data_set(code: str) -> None:
    assert make_images(f"{code}:dictionary").class_names == ("a", "b", "c", "d")
    assert make_images(f"{code}:subset").class_names == ("a", "b", "c", "d")
    assert make_images(f"{code}:datasets").num_classes == 4


def test_a_folder_is_named_by_the_functions() -> None:
    config = resolve("digits", **named("a.code:net", "a.code:images", {"method": "vanilla"}))
    assert config.folder == Path("runs/images-net-vanilla-0")
    assert resolve("digits").folder.name.startswith("digits-wrn10_0.5-")


def test_the_recipe_of_images_of_ones_own(code: str) -> None:
    """That of other images of one's own; nothing is put in front of a network of one's own."""
    given = named(f"{code}:net", f"{code}:tensors", {})
    source, settings = follow_data(None, given)
    config = resolve(source, **settings)
    assert (source, config.augment, config.normalize) == ("folder", "none", "none")
    source, settings = follow_data(None, named(None, f"{code}:tensors", {}))
    assert resolve(source, **settings).normalize == "imagenet"


def test_test_images_of_another_size_are_named(code: str, call: Call) -> None:
    call(train, words(code, "--out", "run"))
    own = ["--model", f"{code}:net", "--data", f"{code}:smaller", "--corruptions", "none"]
    assert "do not fit" in call(evaluate, ["run", *own], 2)


def test_what_code_interrupts_is_one_line(code: str, call: Call) -> None:
    Path(f"{code}.py").write_text("def net(num_classes): raise KeyboardInterrupt")
    found = call(train, ["--model", f"{code}:net", "--workers", "0", "--out", "run"], 130)
    assert "KeyboardInterrupt" in found and "Traceback" not in found


def test_an_empty_name_is_no_folder(code: str, call: Call) -> None:
    before = {*Path().iterdir()}
    assert "out=" in call(train, words(code, "--out", ""), 2)
    assert {*Path().iterdir()} == before
