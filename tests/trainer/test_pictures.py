from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from entprop_fast.run import pictures
from entprop_fast.train import main

from .conftest import Args


def row(epoch: int, **changed: object) -> dict[str, object]:
    values = dict.fromkeys(
        (
            "loss",
            "aux_loss",
            "entropy_selected",
            "entropy_unselected",
            "sa",
            "train_accuracy",
            "lr",
        ),
        float(epoch),
    )
    return {"epoch": epoch, "signatures": []} | values | changed


def pixels(path: Path) -> np.ndarray:
    return np.asarray(imread(path))


def test_curves_differ_with_the_rows_and_mark_signatures(tmp_path: Path) -> None:
    nan = float("nan")
    histories = {
        "plain": [row(1), row(2)],
        "vanilla": [row(i, aux_loss=0.0, entropy_selected=nan) for i in (1, 2)],
        "marked": [row(1), row(2, signatures=["overfitting"])],
        "one": [row(1)],
    }
    for name, rows in histories.items():
        pictures.draw_curves(tmp_path / f"{name}.png", rows)
    drawn = {name: pixels(tmp_path / f"{name}.png").tobytes() for name in histories}
    assert len(set(drawn.values())) == len(histories)


def test_the_heat_map_grows_with_the_kinds(tmp_path: Path) -> None:
    heights = []
    for kinds in (1, 10):
        accuracies = {f"kind {i}": [90.0, 80.0, 70.0, 60.0, 5.0] for i in range(kinds)}
        severities = ["1", "2", "3", "4", "5"]
        pictures.draw_heat_map(tmp_path / "map.png", accuracies, severities, title="accuracy")
        heights.append(pixels(tmp_path / "map.png").shape[0])
    assert heights[0] < heights[1]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("count", [1, 8])
def test_examples_of_any_number_and_channels(channels: int, count: int, tmp_path: Path) -> None:
    images = torch.rand(count, channels, 8, 6)
    nats = [0.5] * count
    pictures.draw_examples(tmp_path / "a.png", images, 1 - images, nats, nats)
    pictures.draw_examples(tmp_path / "b.png", images, images, nats, nats)
    assert not np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_a_finished_run_draws_the_same_pictures_again(
    finished: Path, tiny: Args, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for name in ("corruptions.png", "examples.png", "curves.png"):
        (out / name).unlink()
    assert main(tiny(out, "--resume")) == 0
    for name in ("corruptions.png", "examples.png", "curves.png"):
        assert np.array_equal(pixels(out / name), pixels(finished / name))


def test_a_method_that_perturbs_nothing_draws_no_examples(tiny: Args, tmp_path: Path) -> None:
    assert main(tiny(tmp_path / "run", "--method", "vanilla", "--epochs", "1")) == 0
    assert not (tmp_path / "run" / "examples.png").exists()
