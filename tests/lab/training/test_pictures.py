from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from entprop_fast.lab.report import pictures
from tests.lab.conftest import Call, model

PICTURES = ("corruptions.png", "examples.png", "curves.png")


def row(epoch: int, **changed: object) -> dict[str, object]:
    names = "loss aux_loss entropy_selected entropy_unselected sa train_accuracy lr".split()
    return {"epoch": epoch, "signatures": []} | dict.fromkeys(names, float(epoch)) | changed


def pixels(path: Path) -> np.ndarray:
    return np.asarray(imread(path))


def test_curves_differ_with_the_rows_and_mark_signatures(tmp_path: Path) -> None:
    nan = float("nan")
    histories = [
        [row(1), row(2)],
        [row(i, aux_loss=0.0, entropy_selected=nan) for i in (1, 2)],  # vanilla
        [row(1), row(2, signatures=["overfitting"])],
        [row(1)],
    ]
    drawn = set()
    for one in histories:
        pictures.draw_curves(tmp_path / "curves.png", one)
        drawn.add(pixels(tmp_path / "curves.png").tobytes())
    assert len(drawn) == len(histories)


def test_the_heat_map_grows_with_the_kinds(tmp_path: Path) -> None:
    heights = []
    for kinds in (1, 10):
        accuracies = {f"kind {i}": [90.0, 80.0, 70.0, 60.0, 5.0] for i in range(kinds)}
        pictures.draw_heat_map(tmp_path / "map.png", accuracies, list("12345"), title="accuracy")
        heights.append(pixels(tmp_path / "map.png").shape[0])
    assert heights[0] < heights[1]


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (8, 3), (1, 4)])
def test_examples_of_any_number_and_channels(count: int, channels: int, tmp_path: Path) -> None:
    images, nats = torch.rand(count, channels, 8, 6), [0.5] * count
    pictures.draw_examples(tmp_path / "a.png", images, 1 - images, nats, nats)
    pictures.draw_examples(tmp_path / "b.png", images, images, nats, nats)
    assert not np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_the_difference_is_drawn_however_small(tmp_path: Path) -> None:
    """FOUND N8: rows of 1/255 look alike; the third one does not, and its factor is named."""
    images = torch.full((2, 1, 8, 8), 0.5)
    moved = images.clone()
    moved[:, :, :4] += 1 / 255
    moved[:, :, 4:] -= 1 / 255
    assert pictures.amplification(images, moved) == 127
    assert pictures.amplification(images, images) == 1
    assert pictures.amplification(torch.zeros(1), torch.ones(1)) == 0.5
    pictures.draw_examples(tmp_path / "a.png", images, moved, [0.5] * 2, [0.5] * 2)
    drawn = pixels(tmp_path / "a.png")[..., :3]
    grey = [(abs(one - 0.5) < 0.02).all(axis=-1).sum() for one in np.array_split(drawn, 3)]
    assert min(grey[:2]) > 5000 and grey[2] < 1000


def test_examples_name_their_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND N8: what an image is, what it is taken for, before and after; any name is text."""
    titles: list[str] = []
    set_title = Axes.set_title

    def noted(axes: Axes, title: str, **settings: Any) -> Any:
        titles.append(title)
        return set_title(axes, title, **settings)

    monkeypatch.setattr(Axes, "set_title", noted)
    images = torch.rand(2, 3, 8, 8)
    classes = [
        pictures.Classes("cat", "dog", "cow"),
        pictures.Classes("$x$_{", "a very long name of a class", "n01440764"),
    ]
    path = tmp_path / "a.png"
    pictures.draw_examples(path, images, 1 - images, [0.5, 0.25], [1.0, 2.0], classes)
    assert titles == [
        "is cat\ntaken for dog\n0.50 nats",
        "is $x$_{\ntaken for a very long nam…\n0.25 nats",
        "taken for cow\n1.00 nats",
        "taken for n01440764\n2.00 nats",
        "",
        "",
    ]


@pytest.mark.parametrize("epochs", [1, 2, 4, 60])
def test_epochs_are_whole_numbers(epochs: int) -> None:
    """FOUND N8: axes with epoch 1.5."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot(range(1, epochs + 1), range(epochs))
    pictures.count_epochs(axes)
    figure.draw_without_rendering()
    ticks = axes.get_xticks()
    assert len(ticks) and all(tick == int(tick) for tick in ticks)


def test_a_finished_run_is_not_trained_again(finished: Path, run: Call, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    for name in (*PICTURES, "summary.json"):
        (out / name).unlink()
    run(out, "--resume")
    for name in PICTURES:
        assert np.array_equal(pixels(out / name), pixels(finished / name))
    assert model(out) == model(finished)
    assert (out / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("method", ["vanilla", "fast_advprop"])
def test_a_method_that_perturbs_nothing_draws_no_examples(
    method: str, run: Call, tmp_path: Path
) -> None:
    run(tmp_path, "--method", method, "--epochs", "1", "--corruptions", "none")
    assert (tmp_path / "examples.png").exists() == (method != "vanilla")
