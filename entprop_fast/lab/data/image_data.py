"""Hold data sets as whole tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from entprop_fast.lab.data.image_files import RESIZED_CROP
from entprop_fast.lab.data.image_values import to_float
from entprop_fast.lab.data.loader import check_batching

MOST_CLASSES = 10_000  # labels that reach further are no classes
_SHIFT_NAME = re.compile(r"\w(?:[\w.+ -]*[\w.+-])?")


def is_shift_name(name: str) -> bool:
    """Return whether a further test set may be called so: it stands in tables and columns."""
    return _SHIFT_NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class ShiftSet:
    """Further test images of the same classes, by another artist or camera, say: a natural shift.

    Attributes:
        name: of the set.
        images: ``[N, C, H, W]``, as the data set's own.
        labels: int64 ``[N]``.
    """

    name: str
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ImageData:
    """Images ``[N, C, H, W]``, labels int64 ``[N]`` in ``[0, num_classes)``.

    Images are float32 in [0, 1], or uint8 in training and test alike. `class_names` is empty where
    they are not known; `official_corruptions` names the published corrupted set of the test images
    (``cifar10-c``, ``cifar100-c``), where there is one; `shifts` are test sets that come with it.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int
    class_names: tuple[str, ...] = ()
    official_corruptions: str | None = None
    shifts: tuple[ShiftSet, ...] = ()

    @property
    def num_train(self) -> int:
        """Training images."""
        return len(self.train_images)

    @property
    def num_test(self) -> int:
        """Test images."""
        return len(self.test_images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def training(self, augment: str) -> tuple[Tensor, Tensor]:
        """Return the training images and labels for `entprop_fast.data.create_loader`.

        Raises:
            ValueError: an ``augment`` that is made while images are read from files.
        """
        if augment == RESIZED_CROP:
            raise ValueError(
                f"augment {augment!r} is for images read from files; {self.name!r} is whole "
                "tensors: crop-flip, say, or what may follow it"
            )
        return self.train_images, self.train_labels

    def test_starts(self, batch_size: int) -> Sequence[int]:
        """Return the number of the first image of each of the `test_batches`."""
        return range(0, self.num_test, batch_size)

    def test_batches(
        self, batch_size: int, *, workers: int | None = None, starts: Sequence[int] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the test set in order: float32 images ``[B, C, H, W]`` in [0, 1], labels.

        Args:
            batch_size: images in a batch.
            workers: of `ImageFiles`; nothing is read here, so none is started.
            starts: of the batches to yield, some of `test_starts`; None: all.

        Raises:
            ValueError: ``batch_size`` below 1.
        """
        check_batching(self.test_images, self.test_labels, batch_size)
        starts = self.test_starts(batch_size) if starts is None else starts
        rows = (slice(s, s + batch_size) for s in starts)
        return ((to_float(self.test_images[i]).float(), self.test_labels[i]) for i in rows)
