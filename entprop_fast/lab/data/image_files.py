"""Hold data sets as lists of image files, which worker processes read and transform."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from entprop_fast.lab.data.image_values import to_float
from entprop_fast.lab.data.prefetch import read_batches
from entprop_fast.lab.data.read_image import read_image
from entprop_fast.optional import import_torchvision

IMAGE_SIZE = 224  # pixels, where a data set or a user names no other
RESIZED_CROP = "resized-crop-flip"  # of each image as it is read, of any size
SMALL = 64  # pixels up to which images are treated as CIFAR's are

Transform = Callable[[Any], Tensor]

# ImageNet's evaluation: the shorter side to 256 pixels, then the middle 224 of it.
_RESIZED, _CROPPED = 256, 224


class FileList:
    """Image files under one folder, and their labels.

    Args:
        root: the folder.
        files: paths within it.
        labels: of each file, in ``[0, classes)``.
    """

    def __init__(self, root: Path, files: Sequence[str], labels: Sequence[int]) -> None:
        self.root = root
        # One array: a million strings would be copied into every worker, reference count by
        # reference count.
        self._files: NDArray[np.bytes_] = np.array([os.fsencode(file) for file in files], dtype="S")
        self.labels = torch.tensor(labels, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """Return the path of the file with this number."""
        return self.root / os.fsdecode(self._files[index])

    def names(self) -> list[tuple[int, str]]:
        """Return each file's label, and its name without folders and suffix."""
        stems = (os.path.splitext(os.path.basename(os.fsdecode(file)))[0] for file in self._files)
        return list(zip(self.labels.tolist(), stems, strict=True))

    def kept(self, rows: Sequence[int]) -> FileList:
        """Return the files with these numbers, in that order."""
        files = [os.fsdecode(self._files[row]) for row in rows]
        return FileList(self.root, files, self.labels[list(rows)].tolist())


@dataclass(frozen=True)
class ImageFiles:
    """Image files of any size and mode, given as RGB of one size.

    Args:
        name: of the data set.
        train: training files.
        test: test files.
        class_names: of each label.
        image_size: height and width that training and evaluation see, in pixels.
        official_corruptions: the published corrupted set of the test images (``imagenet-c``).
        skipped: training files that cannot be read, and why; they are not in `train`.
    """

    name: str
    train: FileList
    test: FileList
    class_names: tuple[str, ...]
    image_size: int = IMAGE_SIZE
    official_corruptions: str | None = None
    skipped: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Classes."""
        return len(self.class_names)

    @property
    def num_train(self) -> int:
        """Training images."""
        return len(self.train)

    @property
    def num_test(self) -> int:
        """Return how many test images there are."""
        return len(self.test)

    @property
    def test_labels(self) -> Tensor:
        """Return the labels of the test images, int64 ``[N]``."""
        return self.test.labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image after the transforms."""
        return 3, self.image_size, self.image_size

    def training(self, augment: str) -> Dataset[tuple[Tensor, int]]:
        """Return the training images for `entprop_fast.data.create_loader`, uint8.

        Args:
            augment: ``resized-crop-flip``: each image's own random crop of 8 to 100 % of its area
                and flip; else the images as the evaluation sees them.
        """
        if augment == RESIZED_CROP:
            return TransformedFiles(self.train, training_transform(self.image_size))
        return TransformedFiles(self.train, evaluation_transform(self.image_size))

    def test_starts(self, batch_size: int) -> Sequence[int]:
        """Return the number of the first image of each of the `test_batches`."""
        return range(0, self.num_test, batch_size)

    def test_batches(
        self, batch_size: int, *, workers: int | None = None, starts: Sequence[int] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the test set in order: float32 images ``[B, 3, S, S]`` in [0, 1], labels.

        Args:
            batch_size: images in a batch.
            workers: processes that read; 0: the calling one; None: one a core, at most 8.
            starts: of the batches to read, some of `test_starts`; None: all.

        Raises:
            ValueError: ``batch_size`` below 1.
            UnreadableImage: (while iterating) a file that could be read is gone or changed.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size} must be at least 1")
        test = TransformedFiles(self.test, evaluation_transform(self.image_size))
        rows = rows_of(len(test), batch_size, starts)
        read = read_batches(test, rows, workers=workers, what="test image")
        return ((to_float(images), labels) for images, labels in read)


def rows_of(images: int, batch_size: int, starts: Sequence[int] | None) -> list[Tensor]:
    """Return the rows of each batch, int64: of all, or of those with these first images."""
    starts = range(0, images, batch_size) if starts is None else starts
    return [torch.arange(start, min(start + batch_size, images)) for start in starts]


class TransformedFiles(Dataset[tuple[Tensor, int]]):
    """Item i is the transformed image i and its label."""

    def __init__(self, files: FileList, transform: Transform) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = read_image(self.files.path(index))
        return self.transform(image), int(self.files.labels[index])


def resized(size: int) -> int:
    """Return the shorter side, in pixels, of which the evaluation cuts the middle `size` out."""
    return round(size * _RESIZED / _CROPPED)


def evaluation_transform(size: int) -> Transform:
    """Make Pillow images uint8 ``[3, size, size]``: shorter side to 8/7 size, middle cut out."""
    v2 = import_torchvision("transforms.v2", purpose="reading image files")
    made: Transform = v2.Compose([v2.Resize(resized(size)), v2.CenterCrop(size), v2.PILToTensor()])
    return made


def training_transform(size: int) -> Transform:
    """Make Pillow images uint8 ``[3, size, size]``: random crop of 8 to 100 %, random flip."""
    v2 = import_torchvision("transforms.v2", purpose="reading image files")
    made: Transform = v2.Compose(
        [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    )
    return made
