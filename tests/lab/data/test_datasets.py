"""The digits and their splits."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from entprop_fast.lab.data import load


def rows(images: Tensor) -> set[tuple[float, ...]]:
    return {tuple(image.flatten().tolist()) for image in images}


def test_shapes_types_and_range() -> None:
    data = load("digits")
    assert (data.name, data.num_classes) == ("digits", 10)
    assert data.train_images.shape == (1297, 1, 8, 8) and data.test_images.shape == (500, 1, 8, 8)
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
        assert images.min() == 0 and images.max() == 1
        assert len(labels) == len(images) and set(labels.tolist()) == set(range(10))


def test_every_digit_is_in_one_split_with_its_own_label() -> None:
    data, source = load("digits", seed=3), load_digits()
    truth = {
        (tuple((image / 16).ravel().tolist()), int(label))
        for image, label in zip(source.images, source.target, strict=True)
    }
    images = torch.cat((data.train_images, data.test_images))
    labels = torch.cat((data.train_labels, data.test_labels)).tolist()
    loaded = {
        (tuple(image.flatten().tolist()), label)
        for image, label in zip(images, labels, strict=True)
    }
    assert loaded == truth
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
    data, again, other = (load("digits", train_size=200, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(data.train_images, again.train_images)
    assert torch.equal(data.test_images, again.test_images)
    assert rows(data.test_images) != rows(other.test_images)
    larger = load("digits", train_size=400, seed=1)
    assert rows(data.train_images) < rows(larger.train_images)
    assert torch.equal(data.test_images, larger.test_images)


def test_the_global_generators_are_left_alone() -> None:
    state = torch.get_rng_state()
    load("digits", train_size=50)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("train_size", [-1, 0, 9, 1298])
def test_train_size_out_of_range(train_size: int) -> None:
    with pytest.raises(ValueError, match=rf"train_size = {train_size} .* 10 .* 1297"):
        load("digits", train_size=train_size)


def test_other_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown dataset 'digit'; nearest: digits"):
        load("digit")
    with pytest.raises(ValueError, match="seed = -1 must be between 0 and 4294967295"):
        load("digits", seed=-1)


def test_a_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing(MetaPathFinder):
        def find_spec(self, fullname: str, *_: object) -> None:
            if fullname == "sklearn":
                raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    for module in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(ImportError, match=r"entprop_fast\[train\]"):
        load("digits")
