"""Fewer test images are the same ones for every seed, each class in its share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from entprop_fast.lab.data import ImageData, load
from entprop_fast.lab.data.fewer_images import fewer_tests
from tests.tiny_data.idx import tiny_fashion
from tests.tiny_data.layouts import LAYOUTS


def rows_of(part: ImageData, whole: ImageData) -> list[int]:
    """The numbers of test images in the whole set."""
    return [
        int((whole.test_images == one).flatten(1).all(1).nonzero()[0]) for one in part.test_images
    ]


def test_every_seed_has_the_same_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_fashion(tmp_path, monkeypatch)
    whole = load("fashion_mnist", data_dir=tmp_path)
    few, same, more = (
        load("fashion_mnist", data_dir=tmp_path, train_size=20, test_size=size, seed=seed)
        for size, seed in ((30, 0), (30, 7), (50, 7))
    )
    assert torch.equal(few.test_images, same.test_images)
    assert not torch.equal(few.train_images, same.train_images)
    rows = rows_of(few, whole)
    assert rows == sorted(rows) and set(rows) < set(rows_of(more, whole))
    assert torch.bincount(few.test_labels).tolist() == [3] * 10
    assert torch.equal(few.test_labels, whole.test_labels[rows])
    with pytest.raises(ValueError, match=r"test_size = 9 .*test images"):
        load("fashion_mnist", data_dir=tmp_path, test_size=9)
    with pytest.raises(ValueError, match="test_size = 1000"):
        load("fashion_mnist", data_dir=tmp_path, test_size=1000)


def test_files_and_published_corruptions(tmp_path: Path) -> None:
    LAYOUTS["pets"](tmp_path)
    data = load("pets", data_dir=tmp_path, test_size=3, image_size=16, say=lambda text: None)
    assert data.num_test == 3 and sorted(data.test_labels.tolist()) == [0, 1, 2]
    images, labels = torch.zeros(8, 3, 4, 4, dtype=torch.uint8), torch.arange(8) % 2
    whole = ImageData("x", images, labels, images, labels, 2, official_corruptions="cifar10-c")
    assert fewer_tests(whole, None) is whole
    assert fewer_tests(whole, 4).official_corruptions is None  # they are of all test images
