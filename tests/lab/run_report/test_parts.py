"""Runs that are not finished, not whole, several, or another's: each gets a page that says so."""

from __future__ import annotations

import base64
import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from entprop_fast.lab import checkpoint
from entprop_fast.lab.cli import report, train
from entprop_fast.lab.data import ImageData, load
from entprop_fast.lab.evaluation.scored_network import Scored
from entprop_fast.lab.run_report import run_tables
from entprop_fast.lab.run_report.answers import Answers, Example, answers_of
from entprop_fast.lab.run_report.curves import Line, training_panels
from entprop_fast.lab.run_report.examine import Examined
from entprop_fast.lab.run_report.page import render
from entprop_fast.lab.run_report.read_run import Run, Scores, read_runs
from entprop_fast.lab.run_report.thumbnails import SIDE, data_uri
from entprop_fast.lab.training.deploy import load_deployable, save_deployable
from tests.lab.conftest import Call, summary
from tests.lab.run_report.conftest import Copied
from tests.lab.run_report.read_page import Page
from tests.tiny_data import layouts

undrawn = pytest.mark.usefixtures("undrawn")
EVIL = "<script>alert(1)</script>"


def page_of(folder: Path, call: Call, *more: str) -> Page:
    call(report, [str(folder), "--threads", "1", *more])
    return Page(folder / "report.html")


@undrawn
def test_several_runs_side_by_side(
    finished: Path, copied: Copied, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copied("other")
    saved = summary(other) | {"sa": 12.5, "cost": 9.876}
    (other / "summary.json").write_text(json.dumps(saved))
    config = other / "config.toml"
    config.write_text(config.read_text().replace("lr = 0.1", "lr = 0.25"))
    monkeypatch.chdir(tmp_path)
    call(report, [str(finished), str(other), "--threads", "1"])
    page = Page(tmp_path / "report.html")
    table = page.cells("Scores of each run")
    assert list(table) == ["finished", "other"]
    assert (table["other"]["SA"], table["other"]["cost"]) == ("12.5", "9.88")
    assert table["finished"]["RA"] == table["other"]["RA"] == f"{saved['ra']:.1f}"
    settings = page.cells("Settings")
    assert settings["lr≠"] == {"finished": "0.1", "other": "0.25"}
    assert [name for name in settings if name.endswith("≠")] == ["lr≠"]
    kinds = page.cells("Accuracy (%) by kind of corruption, mean of the severities")
    assert kinds.keys() == saved["corruptions"].keys()
    assert "other: now" in page.words and "its summary says 12.50 %" in page.words
    assert "finished: now" not in page.words


def test_names_of_runs_tell_them_apart(tmp_path: Path) -> None:
    folders = [tmp_path / one / "run" for one in ("a", "b")]
    for one in folders:
        one.mkdir(parents=True)
        (one / "metrics.jsonl").touch()
    assert [one.name for one in read_runs(folders)] == ["a/run", "b/run"]
    assert [one.name for one in read_runs(folders[:1])] == ["run"]


@undrawn
def test_a_run_that_is_not_finished(copied: Copied, call: Call) -> None:
    folder = copied("half", "summary.json", "model.safetensors")
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join([*rows[:2], rows[2][:40]]))  # killed within
    page = page_of(folder, call)
    assert "half is not finished: 2 of 3 epochs are whole" in page.words
    assert f"SA {json.loads(rows[1])['sa']:.1f} % accuracy on clean test images, after 2" in (
        page.words
    )
    assert "lines that hold no epoch are left out (1)" in page.words
    assert "No corrupted images were measured yet" in page.words
    assert any(caption.startswith("Test images of half") for caption in page.tables)


# What is taken from a run's folder, and what its page must say of that.
MISSING = {
    "checkpoint.pt checkpoint.prev.pt": "only its checkpoint.pt would hold them",
    "checkpoint.pt checkpoint.prev.pt model.safetensors": "The network cannot be loaded",
    "config.toml": "config.toml is missing: settings are not known",
    "metrics.jsonl": "No epoch is whole yet.",
}


@undrawn
@pytest.mark.parametrize("files", MISSING)
def test_what_is_missing_is_named(files: str, copied: Copied, call: Call) -> None:
    page = page_of(copied("run", *files.split()), call)
    assert MISSING[files] in page.words
    assert f"RA {summary(copied('again'))['ra']:.1f} %" in page.words


@undrawn
def test_what_cannot_be_read_is_named(copied: Copied, call: Call) -> None:
    folder = copied("run")
    for name in ("summary.json", "metrics.jsonl"):
        (folder / name).write_text("[" * 100_000)
    (folder / "config.toml").write_bytes(b"\xff")
    (folder / "checkpoint.pt").write_bytes(b"x")
    (folder / "checkpoint.prev.pt").unlink()
    (folder / "model.safetensors").write_bytes(b"x")
    words = page_of(folder, call).words
    for said in (
        "summary.json is not",
        "metrics.jsonl: lines that hold no",
        "config.toml cannot be read",
    ):
        assert said in words
    assert "The network cannot be loaded: " in words and "truncated" in words


@undrawn
def test_the_deployed_network_answers(copied: Copied, call: Call) -> None:
    """The one that was scored, which need not be the checkpoint's; drift is the checkpoint's."""
    folder = copied("run")
    network, spec = load_deployable(folder / "model.safetensors")
    with torch.no_grad():
        for one in network.parameters():
            one.zero_()
    save_deployable(folder / "model.safetensors", network, spec)
    page = page_of(folder, call)
    table = page.cells("Test images of run by true class (rows) and predicted class (columns)")
    assert {name for row in table.values() for name in row if row[name] != "0"} == {
        "0",
        "right (%)",
    }
    assert "run: now" in page.words
    assert "Distance of main and auxiliary halves in run" in page.tables


@undrawn
def test_a_checkpoint_that_cannot_be_read(copied: Copied, call: Call) -> None:
    """The deployed network answers all the same; --images 0 shows none of the images."""
    folder = copied("run", "checkpoint.prev.pt")
    (folder / "checkpoint.pt").write_bytes(b"x")
    page = page_of(folder, call, "--images", "0")
    assert any(caption.startswith("Test images of run") for caption in page.tables)
    assert "The network cannot be loaded: " in page.words and "truncated" in page.words
    assert "written with --images 0" in page.words
    assert not any(tag == "img" for tag, _ in page.tags)


def moved(folder: Path, data_set: str) -> None:
    """Say in a run's checkpoint that it was trained on another data set."""
    state = checkpoint.read(folder / "checkpoint.pt")
    state["network"]["dataset"] = data_set
    checkpoint.write(folder / "checkpoint.pt", state)
    (folder / "model.safetensors").unlink()


@undrawn
@pytest.mark.parametrize("data_set", ["folder:/nowhere", "yours", "cifar10"])
def test_images_that_are_not_there(data_set: str, copied: Copied, call: Call) -> None:
    folder = copied("run")
    moved(folder, data_set)
    page = page_of(folder, call)
    assert "The test images cannot be shown: " in page.words and data_set in page.words
    assert not any(tag == "img" for tag, _ in page.tags)
    assert "Distance of main and auxiliary halves in run" in page.tables


CODE = """
import torch
open("imported", "a").write("x")
images = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
labels = torch.arange(24) % 3

def data():
    return {"train": (images, labels), "test": torch.utils.data.TensorDataset(images, labels),
            "class_names": ("ant", "bee", "cat")}

def net(num_classes):
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten()
    return torch.nn.Sequential(*layers, torch.nn.Linear(144, num_classes))
"""


@undrawn
@pytest.mark.usefixtures("without_pictures")
def test_a_network_and_images_of_one_s_own(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown where the command line names what makes them; no code is run because a file does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "report_mine.py").write_text(CODE)
    own = ["--model", "report_mine:net", "--data", "report_mine:data", "--threads", "1"]
    small = ["--recipe", "folder", "--epochs", "1", "--batch-size", "12", "--device", "cpu"]
    call(train, [*small, *own, "--augment", "none", "--corruptions", "none", "--out", "run"])
    monkeypatch.delitem(sys.modules, "report_mine")
    (tmp_path / "imported").unlink()
    said = call(report, ["run"])
    for part in ("without confusion matrix and test images: ", "without norm drift: "):
        (line,) = [one for one in said.splitlines() if one.startswith(f"run: {part}")]
        assert "give --model MODULE:FUNCTION" in line
    assert said.count("--data MODULE:FUNCTION") == 1
    page = page_of(Path("run"), call)
    assert not (tmp_path / "imported").exists()
    assert "give --model MODULE:FUNCTION" in page.words
    assert "without " not in call(report, ["run", *own])
    page = page_of(Path("run"), call, *own, "--images", "2")
    table = page.cells("Test images of run by true class (rows) and predicted class (columns)")
    assert list(table) == ["ant", "bee", "cat"]
    right = sum(int(row[name]) for name, row in table.items())
    assert f"{100 * right / 24:.1f}" == f"{summary(Path('run'))['sa']:.1f}"
    assert len(page.cells("Distance of main and auxiliary halves in run")) == 1
    shown = [one for tag, one in page.tags if tag == "img"]
    assert 2 <= len(shown) <= 4
    images = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for one in shown:
        levels = Image.open(io.BytesIO(base64.b64decode(str(one["src"]).partition(",")[2])))
        number = int(str(one["alt"]).split()[2].strip(","))
        expected = (255 * images[number]).permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(levels) - expected).max() <= 0.51


def run_of(**more: Any) -> Run:
    """A run that was read from no file."""
    given: dict[str, Any] = {"folder": Path(), "name": "run", "settings": {}, "rows": []}
    return Run(
        **given | {"signatures": [], "finished": True, "scores": Scores(), "notes": []} | more
    )


def test_whatever_a_run_says_is_text(tmp_path: Path) -> None:
    """A class, a setting, a file's name: none of it is markup, or turns the line around."""
    example = Example(
        uri="data:,",
        number=1,
        true=EVIL,
        predicted=f'" onload="{EVIL}',
        entropy=1.0,
        probability=0.5,
        probability_true=0.25,
    )
    answers = Answers(
        class_names=(EVIL, f"b{EVIL}"),
        confusion=[[1, 1], [0, 1]],
        uncertain=[example],
        wrong=[example],
    )
    run = run_of(
        name=f"{EVIL}\u202e\udcff",
        settings={"method": EVIL, EVIL: [EVIL], "epochs": EVIL},
        rows=[{"epoch": 1, "sa": 50.0, EVIL: 2.0}, {"epoch": 2, "sa": 60.0}],
        signatures=[(1, EVIL)],
        scores=Scores(device=EVIL, corruption_source=EVIL, corruptions={EVIL: [50.0]}),
        notes=[EVIL],
    )
    other = replace(run, name=f"{EVIL}2")
    found = [
        Examined(answers=answers, drifts={EVIL: {"drift of means": 1.0}}),
        Examined(answers=EVIL, drifts=EVIL),
    ]
    for count in (1, 2):
        path = tmp_path / "page.html"
        path.write_bytes(render([run, other][:count], found[:count], {EVIL: {EVIL: EVIL}}))
        page = Page(path)
        assert "<script" not in page.source and "\u202e" not in page.source
        assert {tag for tag, _ in page.tags} & {"script"} == set()
        assert not any(name.startswith("on") for _, one in page.tags for name in one)
        assert page.words.count(EVIL) > 20 and page.left_open == []
        assert "\\u202e\\udcff" in page.words


def test_many_classes_are_pairs() -> None:
    confusion = torch.eye(30, dtype=torch.int64) * 9
    confusion[3, 4], confusion[7, 1] = 3, 1
    names = tuple(f"class {one}" for one in range(30))
    answers = Answers(class_names=names, confusion=confusion.tolist(), uncertain=[], wrong=[])
    table = run_tables.confusion(answers, "run")
    assert [(name, [one.text for one in cells]) for name, cells in table.rows] == [
        ("class 3", ["class 4", "3", "25.0"]),
        ("class 7", ["class 1", "1", "10.0"]),
    ]


def test_a_network_without_a_right_answer() -> None:
    """Every image of one class, answers that are all another; the data set stays as it is."""

    class InPlace(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            images.zero_()
            return torch.tensor([[0.0, math.log(3.0)]]).expand(len(images), 2)

    images, labels = torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64)
    before = images.clone()
    data = ImageData("x", images, labels, images, labels, 2)
    network = Scored(InPlace(), None, (0.0, 1.0))
    found = answers_of(network, data, batch_size=2, workers=None, shown=3)
    assert torch.equal(images, before)
    assert found.confusion == [[0, 5], [0, 0]] and found.accuracy == 0
    assert [one.number for one in found.wrong] == [0, 1, 2]
    assert found.wrong[0].probability == pytest.approx(0.75)
    assert found.wrong[0].probability_true == pytest.approx(0.25)
    assert found.most_entropy == pytest.approx(math.log(2))
    fewer = replace(data, num_classes=1, class_names=("only",))
    found = answers_of(network, fewer, batch_size=2, workers=None, shown=1)
    assert found.class_names == ("only", "1") and found.confusion == [[0, 5], [0, 0]]


def test_images_read_from_files(tmp_path: Path) -> None:
    """Each is shown as the network saw it, under its class's name."""
    images = load(f"folder:{layouts.folder(tmp_path)}", image_size=8)

    class Colors(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))[:, : images.num_classes]

    network = Scored(Colors(), None, (0.0, 1.0))
    found = answers_of(network, images, batch_size=2, workers=0, shown=3)
    batches = list(images.test_batches(2, workers=0))
    seen, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert found.images == len(labels) and len(found.uncertain) == min(3, len(labels))
    for one in found.uncertain:
        shown = Image.open(io.BytesIO(base64.b64decode(one.uri.partition(",")[2])))
        expected = (255 * seen[one.number]).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(np.asarray(shown), expected)
        assert one.true == images.class_names[labels[one.number]]


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (torch.rand(3, 32, 32), "png"),
        ((torch.rand(3, 8, 8) * 255).byte(), "png"),
        (torch.rand(2, 8, 8), "png"),
        (torch.rand(3, 224, 300), "jpeg"),
    ],
)
def test_thumbnails(image: torch.Tensor, kind: str) -> None:
    head, _, text = data_uri(image).partition(";base64,")
    assert head == f"data:image/{kind}"
    shown = Image.open(io.BytesIO(base64.b64decode(text)))
    assert max(shown.size) <= SIDE
    if kind == "png":
        levels = image.double() if image.dtype == torch.uint8 else 255 * image.double()
        levels = levels.permute(1, 2, 0) if len(image) == 3 else levels.mean(dim=0)
        assert np.abs(np.asarray(shown) - levels.numpy()).max() <= 0.5 + 1e-4
    else:
        assert shown.size == (SIDE, 84)


def test_curves_show_the_rows() -> None:
    """A panel for what the method has, a point for each epoch, higher values higher up."""
    epochs = (1.0, 2.0, 4.0)
    rows = [{"epoch": n, "sa": 10 * n, "loss": 2 - n, "aux_loss": 0.0} for n in epochs]
    accuracy, loss = training_panels([run_of(rows=rows)])
    assert (accuracy.title, loss.title) == ("Accuracy (%)", "Loss")
    assert [line.name for line in loss.lines] == ["main"]  # no auxiliary pass
    path = next(one for one in accuracy.picture.split("<path ") if "var(--series-0)" in one)
    points = [tuple(map(float, one.split()[:2])) for one in path.split('"')[1].split("L ")[1:]]
    (x1, y1), (x2, y2) = points[-2:]
    start = tuple(map(float, path.split('"')[1].split()[1:3]))
    assert (x2 - x1) == pytest.approx(2 * (x1 - start[0]), rel=1e-4)  # epochs 1, 2 and 4
    assert (y1 - y2) == pytest.approx(2 * (start[1] - y1), rel=1e-4) and y2 < y1  # upwards


def test_ten_runs_are_told_apart() -> None:
    lines = [Line(name="", place=place) for place in range(20)]
    assert len({(one.color, one.dashes) for one in lines}) == 20


def test_a_long_run_keeps_its_last_epoch() -> None:
    rows = [{"epoch": n, "sa": 1.0} for n in range(1, 252)]
    table = run_tables.epochs(run_of(rows=rows))
    assert len(table.rows) <= run_tables.MOST_EPOCHS
    assert [name for name, _ in table.rows][-2:] == ["249", "251"]
    assert table.caption == "Epochs of run, one in 3 and the last"
