"""bench/recipes without timing anything: what it runs, and what its table says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import rows
from bench.recipes import cases, table
from bench.recipes.cases import Case, case_of, stepper
from entprop_fast.lab.training.recipe import data_set_recipes, resolve
from entprop_fast.lab.training.trainer import Trainer
from tests.bench.conftest import WHERE


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_recipe_is_measured_as_it_is_shipped(device: str) -> None:
    for name in data_set_recipes():
        case, own = case_of(name, device), resolve(name)
        same = ("arch", "method", "options", "epochs", "amp", "normalize", "image_size")
        for setting in same:
            assert getattr(case.config, setting) == getattr(own, setting), (name, setting)
        assert case.recipe_batch == own.batch_size
        smaller = device == "cpu" and name == "imagenet"
        assert (case.config.batch_size < own.batch_size) == smaller


def test_hours_are_the_images_of_all_epochs() -> None:
    # 200 epochs of 50,000 images, 100 a second: 100,000 seconds
    assert case_of("cifar10", "cpu").hours(100) == pytest.approx(100_000 / 3600)
    # 105 epochs of 1,281,167 images
    assert case_of("imagenet", "cuda").hours(1000) == pytest.approx(105 * 1281.167 / 3600)
    assert case_of("digits", "cpu").train_images == 1797 - 500


@pytest.mark.parametrize("name", ["digits", "cub"])
def test_a_step_is_the_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainers: list[Trainer] = []

    class Kept(Trainer):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            trainers.append(self)

    monkeypatch.setattr(cases, "Trainer", Kept)
    case = case_of(name, "cpu")
    if name == "cub":
        small = replace(case.config, batch_size=4, arch="wrn10_0.5")
        case = replace(case, config=small, pixels=16)
    step = stepper(case)
    (trainer,) = trainers
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    step()
    assert trainer.spec.num_classes == case.classes
    assert trainer.loader.batch_size == case.config.batch_size
    assert trainer.method.rows > case.config.batch_size  # the auxiliary pass's as well
    pairs = zip(before, trainer.model.parameters(), strict=True)
    assert any(not torch.equal(was, now) for was, now in pairs)


def measured(case: Case) -> rows.Row:
    return table.row_of(case, 2.0) | WHERE


def test_the_table_says_what_is_measured_and_what_extrapolated(
    kept: dict[str, list[rows.Row]],
) -> None:
    kept["recipes_cpu"] = [measured(case_of(name, "cpu")) for name in ("cub", "imagenet")]
    page = Path("docs/x.md")
    text = table.section(page)
    # 64 images in 2 s: 100 x 5,994 in 5.2 h
    assert "| `cub` | resnet18 | 224 | 64 | 32 | 100 x 5,994 | 5.2 |" in text
    assert "| `imagenet` | resnet18 | 224 | 64 (the recipe's: 256) | 32 |" in text
    assert "hours, extrapolated" in text and text.count("Extrapolated:") == 1
    kept["recipes_cuda"] = [measured(case_of("cub", "cuda"))]
    text = table.section(page)
    assert text.count("Extrapolated:") == 2 and "amp bf16" in text
