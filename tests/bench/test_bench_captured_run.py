"""bench/captured_run.py on the CPU, where no step is captured: its curves and its table."""

from __future__ import annotations

from pathlib import Path

import torch

from bench import captured_run, rows
from entprop_fast.lab import data
from entprop_fast.lab.training.recipe import resolve
from tests.bench.conftest import WHERE


def test_the_digits_are_enlarged() -> None:
    images = captured_run.images_at(16)
    assert images.image_shape == (1, 16, 16) and images.num_train == 1797 - 500
    assert images.train_images.min() >= 0 and images.train_images.max() <= 1
    small = data.load("digits").train_images
    blurred = torch.nn.functional.avg_pool2d(images.train_images, 2)
    assert (blurred - small).abs().mean() < 0.1  # the same digits


def test_a_run_is_a_row_and_repeats_itself_on_a_cpu() -> None:
    config = resolve(
        "digits", arch="wrn10_0.5", epochs=2, corruptions="none", device="cpu", train_size=150
    )
    images = data.load("digits", train_size=150)
    eager, again = (captured_run.run(name, config, images) for name in ("eager", "eager again"))
    assert len(eager["loss"]) == len(eager["sa"]) == 2 and not eager["captured"]
    assert captured_run.largest_difference(eager, again, "loss") == 0
    assert eager["seconds"] > eager["first_epoch_seconds"] > 0


def test_the_table_compares_the_curves(kept: dict[str, list[rows.Row]]) -> None:
    def row(name: str, last: float, seconds: float) -> rows.Row:
        curves = {"loss": [2.0, last], "sa": [50.0, 90.0]}
        times = {"seconds": seconds, "first_epoch_seconds": 1.0}
        of_all = {"arch": "wrn28_10", "method": "entprop", "pixels": 32, "batch": 64, "epochs": 2}
        return WHERE | {"run": name} | of_all | curves | times

    measured = ("captured", 1.5, 2.0), ("eager", 1.25, 5.0), ("eager again", 1.375, 5.0)
    kept[captured_run.NAME] = [row(*one) for one in measured]
    text = captured_run.section(Path("docs/x.md"))
    assert "| 2 | 1.5000 | 1.2500 | 1.3750 | 90.0 | 90.0 | 90.0 |" in text
    assert "loss, captured from eager: 0.2500; between the two eager runs: 0.1250" in text
    assert "captured 1.0 s, eager 4.0 s" in text
