"""What a folder of images decides, and that a commented recipe reads as what it was written of."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.data import datasets
from entprop_fast.lab.training import choose_settings, follow_data
from entprop_fast.lab.training.choose_settings import Folder, choose
from entprop_fast.lab.training.commented_recipe import commented
from entprop_fast.lab.training.config import SETTINGS
from entprop_fast.lab.training.recipe import recipe_names, resolve
from entprop_fast.methods import METHODS

FOLDER = Folder(path=Path("/photos/of cats"), num_train=2000, num_test=9, num_classes=2, side=224)


@pytest.mark.parametrize(
    ("num_train", "side", "cached", "expected"),
    [
        # Fine-tuned where the images are few and of photographs' size, and the weights are here.
        (2000, 224, True, {"weights": "pretrained", "image_size": 224, "lr": 5e-4}),
        (2000, 224, False, {"weights": "random", "image_size": 224, "lr": 0.05}),
        (20_000, 224, True, {"weights": "random"}),
        (2000, 32, True, {"weights": "random", "image_size": 32, "augment": "crop-flip"}),
        (2000, 100, False, {"image_size": 100, "augment": "resized-crop-flip"}),
        # At least ten steps an epoch, of sixteen images at least; sgd's rate follows the batch.
        (640, 224, False, {"batch_size": 64, "lr": 0.05, "epochs": 100}),
        (639, 224, False, {"batch_size": 32, "lr": 0.025}),
        (100, 224, False, {"batch_size": 16, "lr": 0.0125}),
        (100, 224, True, {"batch_size": 16, "lr": 5e-4, "epochs": 30}),
        (5, 224, False, {"batch_size": 5, "drop_last": False}),
        # No batch that is too small to mix or to select from.
        (161, 224, False, {"batch_size": 16, "drop_last": True}),
        (168, 224, False, {"batch_size": 16, "drop_last": False}),
        # Fewer epochs of many images.
        (100_000, 224, False, {"epochs": 50}),
        (10**7, 224, False, {"epochs": 10}),
    ],
)
def test_what_a_folder_decides(
    num_train: int,
    side: int,
    cached: bool,
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choose_settings, "weights_here", lambda: cached)
    monkeypatch.setattr(follow_data, "usual_image_size", lambda *_: side)
    config, reasons = vars(choose(replace(FOLDER, num_train=num_train, side=side))).values()
    assert {name: getattr(config, name) for name in expected} == expected
    assert expected.keys() <= reasons.keys() | {"lr"} and reasons.keys() <= SETTINGS.keys()
    assert ("lr" in reasons) == (config.optimizer == "sgd" and config.batch_size < 64)
    assert config.out == "runs/of-cats-entprop"


def test_weights_that_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pt").touch()
    monkeypatch.chdir(tmp_path)
    assert choose(FOLDER, "w.pt").config.weights == str(tmp_path / "w.pt")
    assert choose(FOLDER, "pretrained").config.batch_size == 32  # of the recipe finetune
    with pytest.raises(ValueError, match=r"--weights v\.pt"):
        choose(FOLDER, "v.pt")
    with pytest.raises(ValueError, match="1 training image"):
        choose(replace(FOLDER, num_train=1))


@pytest.mark.parametrize("method", METHODS)
def test_a_commented_recipe_reads_as_it_was_meant(method: str, tmp_path: Path) -> None:
    assert datasets.FOLDER == "folder:"
    for source in recipe_names():
        given: dict[str, Any] = {
            "dataset": 'folder:/a "b"\n\\c',
            "seed": 3,
            "data_dir": "é",
            "augment": "augmix",
        }
        config = resolve(source, method=method, **given)
        file = tmp_path / f"{source}.toml"
        file.write_text(commented(config, {"seed": "it is three."}, "First.", "Second."))
        again = resolve(file)
        for field in fields(config):
            assert getattr(again, field.name) == getattr(config, field.name)
        lines = file.read_text().splitlines()
        assert lines[:3] == ["# First.", "#", "# Second."] and max(map(len, lines)) < 160
        assert "# Chosen: it is three." in lines
