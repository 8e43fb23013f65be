"""What `load` gives for image files is what the evaluation of the run saw, to the bit."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from entprop_fast.lab.data import load
from entprop_fast.lab.data.image_files import evaluation_transform
from entprop_fast.lab.data.image_values import to_float
from entprop_fast.lab.data.read_image import read_image
from entprop_fast.lab.training.deploy import NetworkSpec, network_for
from entprop_fast.lab.training.preprocessing import Preprocessing
from tests.lab.publish.conftest import images_in


@pytest.mark.parametrize("side", [1, 16, 31, 32, 224])
def test_image_files_as_the_evaluation_has_them(side: int, photos: Path, spec: NetworkSpec) -> None:
    steps = replace(spec, image_size=side, input_size=(side, side)).preprocessing
    for file in images_in(photos):
        expected = to_float(evaluation_transform(side)(read_image(file)))
        torch.testing.assert_close(steps(file), expected, rtol=0, atol=0)
        assert (steps(Image.open(file)) == expected).all()
        assert steps(str(file)).is_contiguous()


def test_whole_tensors_stay_as_they_are(tmp_path: Path) -> None:
    """An image of the data set's size is not resized; others cover it, and lose their border."""
    digits = load("digits", seed=0)
    steps = network_for("wrn10_0.5", digits, 0).preprocessing
    image = digits.test_images[0]
    Image.fromarray((image[0].numpy() * 255).astype(np.uint8)).save(tmp_path / "digit.png")
    given = steps(tmp_path / "digit.png")
    assert given.shape == (1, 8, 8) and given.dtype == torch.float32
    assert (given - image).abs().max() < 1 / 250
    wide = Preprocessing(channels=3, height=6, width=9, resize=(6, 9))
    pixels = np.zeros((6, 18, 3), dtype=np.uint8)
    pixels[:, 4:13] = 255  # the middle 9 of 18, the odd pixel to the left
    assert wide(Image.fromarray(pixels)).eq(1).all()


def test_images_that_a_loader_normalised() -> None:
    steps = Preprocessing(
        channels=3, height=2, width=2, resize=(2, 2), mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0)
    )
    white = steps(Image.new("RGB", (5, 5), "white"))
    assert white[:, 0, 0].tolist() == [1.0, 0.75, 0.5]


def test_files_of_earlier_versions_know_their_size() -> None:
    def steps(dataset: str, channels: int, image_size: int | None = None) -> Preprocessing:
        spec = NetworkSpec("wrn10_1", 10, channels, "imagenet", dataset, 0, image_size)
        assert spec.classes == tuple("0123456789")
        return spec.preprocessing

    assert steps("digits", 1).resize == (8, 8)
    assert steps("cifar10", 3).resize == (32, 32)
    found = steps("cub", 3, 224)
    assert (found.height, found.width, found.resize) == (224, 224, (256, 256))
    with pytest.raises(ValueError, match="input_size"):
        steps("somebody's", 3)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"class_names": ("a", "b")}, "class_names"),
        ({"input_size": (4,)}, "input_size"),
        ({"input_size": (10**7, 4)}, "input_size"),
        ({"image_size": -3}, "image_size"),
        ({"image_size": 10**7}, "image_size"),
        ({"mean": (0.5,) * 3}, "std"),
        ({"mean": (0.5,), "std": (0.5,)}, "mean"),
    ],
)
def test_refused_descriptions(changed: dict[str, Any], named: str, spec: NetworkSpec) -> None:
    with pytest.raises(ValueError, match=named):
        NetworkSpec.of(asdict(spec) | changed)


def test_refused_images(spec: NetworkSpec, photos: Path) -> None:
    with pytest.raises(OSError, match="notes"):
        spec.preprocessing(photos / "notes.txt")
    two = replace(spec, in_channels=2, normalize="none")
    with pytest.raises(ValueError, match="channels = 2"):
        two.preprocessing(photos / "wide.jpg")
