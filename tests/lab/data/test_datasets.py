"""Check the digits and their splits, and what every data set refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from entprop_fast.lab.data import load
from entprop_fast.lab.data.official_files import SOURCES


def rows(images: Tensor) -> set[tuple[float, ...]]:
    return {tuple(image.flatten().tolist()) for image in images}


def test_the_digits_in_one_split_each_with_their_labels() -> None:
    data, source = load("digits", seed=3), load_digits()
    assert (data.name, data.num_classes) == ("digits", 10)
    assert data.train_images.shape == (1297, 1, 8, 8) and data.test_images.shape == (500, 1, 8, 8)
    images = torch.cat((data.train_images, data.test_images))
    labels = torch.cat((data.train_labels, data.test_labels))
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    truth = {
        (tuple((image / 16).ravel().tolist()), int(label))
        for image, label in zip(source.images, source.target, strict=True)
    }
    found = zip(images, labels.tolist(), strict=True)
    assert {(tuple(image.flatten().tolist()), label) for image, label in found} == truth
    assert not rows(data.train_images) & rows(data.test_images)


@pytest.mark.parametrize("train_size", [10, 199, 200, 1290, 1297])
def test_splits_are_stratified(train_size: int) -> None:
    data = load("digits", train_size=train_size)
    assert len(data.train_labels) == len(data.train_images) == train_size
    shares = torch.bincount(torch.from_numpy(load_digits().target)) / 1797
    for labels in (data.train_labels, data.test_labels):
        counts = torch.bincount(labels, minlength=10)
        assert (counts - shares * len(labels)).abs().max() < 1.5


def test_seed_decides_the_split_and_small_subsets_lie_in_large_ones() -> None:
    state = torch.get_rng_state()
    data, again, other = (load("digits", train_size=200, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(data.train_images, again.train_images)
    assert torch.equal(data.test_images, again.test_images)
    assert rows(data.test_images) != rows(other.test_images)
    larger = load("digits", train_size=400, seed=1)
    assert rows(data.train_images) < rows(larger.train_images)
    assert torch.equal(data.test_images, larger.test_images)


def refusal(**settings: Any) -> Callable[[], object]:
    return lambda: load(**({"name": "digits"} | settings))


REFUSED: dict[str, Callable[[], object]] = {
    **{
        rf"train_size = {size} .* 10 .* 1297": refusal(train_size=size) for size in (-1, 0, 9, 1298)
    },
    "dataset 'digit'": refusal(name="digit"),
    "seed = -1 must be between 0 and 4294967295": refusal(seed=-1),
    "image_size = 64": refusal(image_size=64),
    "image_size = 32": refusal(name="cifar10", image_size=32),
    "--data-dir": refusal(data_dir="."),
    "--data-dir .*none": refusal(name="cifar10", data_dir="none"),
    "batch_size = 0": lambda: load("digits").test_batches(0),
}


@pytest.mark.parametrize("named", REFUSED)
def test_refusals(named: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        REFUSED[named]()


def test_a_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"entprop_fast\[train\]"):
        load("digits")


@pytest.mark.parametrize("name", SOURCES)
def test_every_official_file_is_in_the_docs_table_and_asked_for(name: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    source = SOURCES[name]
    assert source.counts is not None
    counts = ", ".join(f"{count:,}" for count in source.counts)
    assert f"| `{name}` | {counts} |" in page
    for data_dir, where in ((None, "--data-dir"), (tmp_path, str(tmp_path))):
        with pytest.raises(FileNotFoundError, match=where) as caught:
            load(name, data_dir=data_dir)
        asked = str(caught.value)
        assert name in asked and source.page in asked
        for file in source.files:
            size = "2.5 MB" if file.size is None else f"{file.size:,}"
            assert f"`{file.name}` | {size} | `{file.md5}` |" in page and str(file) in asked
    assert source.page.partition(" ")[0] in page or name == "cars"
