"""Held-out images are training images of every class, and no image is on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from entprop_fast.lab.data import FileList, ImageData, ImageFiles
from entprop_fast.lab.data.held_out import hold_out

COUNTS = (60, 30, 10)  # images of each class
LABELS = torch.tensor([label for label, count in enumerate(COUNTS) for _ in range(count)])


def tensors() -> ImageData:
    """Each image holds its number."""
    images = torch.arange(100.0).view(-1, 1, 1, 1) / 100
    return ImageData("some", images, LABELS, torch.rand(7, 1, 1, 1), torch.zeros(7).long(), 3)


def test_every_class_in_its_share_and_nothing_twice() -> None:
    data = tensors()
    rest, held = hold_out(data, 0.2, seed=0)
    assert isinstance(rest, ImageData) and isinstance(held, ImageData)
    assert torch.bincount(held.test_labels).tolist() == [12, 6, 2]
    assert torch.bincount(rest.train_labels).tolist() == [48, 24, 8]
    both = torch.cat((rest.train_images, held.test_images)).flatten().sort().values
    assert torch.equal(both, data.train_images.flatten())
    numbers = (100 * held.test_images.flatten()).round().long()
    assert torch.equal(held.test_labels, LABELS[numbers])
    assert rest.test_images is data.test_images  # of which nobody chooses


def test_the_seed_draws() -> None:
    first, again, other = (hold_out(tensors(), 0.2, seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first.test_images, again.test_images)  # type: ignore[union-attr]
    assert not torch.equal(first.test_images, other.test_images)  # type: ignore[union-attr]


def test_files_are_split_as_tensors_are() -> None:
    files = [f"{number}.png" for number in range(100)]
    train = FileList(Path("root"), files, LABELS.tolist())
    data = ImageFiles("some", train, FileList(Path("root"), ["t.png"], [0]), ("a", "b", "c"))
    rest, held = hold_out(data, 0.2, seed=0)
    assert isinstance(rest, ImageFiles) and isinstance(held, ImageFiles)
    numbers = [int(held.test.path(row).stem) for row in range(len(held.test))]
    expected = hold_out(tensors(), 0.2, seed=0)[1]
    assert isinstance(expected, ImageData)
    assert numbers == (100 * expected.test_images.flatten()).round().int().tolist()
    assert held.test_labels.tolist() == LABELS[numbers].tolist()
    assert rest.num_train == 80 and rest.num_test == 1


@pytest.mark.parametrize("share", [0.001, 0.02, 0.98, 0.999])
def test_a_share_that_leaves_a_side_without_a_class_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="validation"):
        hold_out(tensors(), share, seed=0)
