"""Read images from a folder for each class, named as the training set's classes are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from entprop_fast.lab import stopping
from entprop_fast.lab.data.image_files import (
    FileList,
    TransformedFiles,
    evaluation_transform,
    rows_of,
)
from entprop_fast.lab.data.image_values import to_float
from entprop_fast.lab.data.prefetch import read_batches
from entprop_fast.lab.data.stray_files import LeftOut, class_folders_in, image_paths
from entprop_fast.optional import import_torchvision


def class_folders(root: Path, class_names: Sequence[str], left_out: LeftOut) -> FileList:
    """List the images of a folder of class folders, by class and name, as `folder:` does.

    Folders within a class folder are of that class. What is no image is told to `left_out`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a folder is none of the classes, or no image is there.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder")
    numbers = {name: number for number, name in enumerate(class_names)}
    files: list[str] = []
    labels: list[int] = []
    for folder in class_folders_in(root, left_out, root.name):
        stopping.check()
        if folder not in numbers:
            known = ", ".join(class_names[:3])
            raise ValueError(
                f"{root / folder} is none of the {len(numbers)} classes ({known}, ...)"
            )
        found = image_paths(root / folder, left_out, f"{root.name}/{folder}")
        files += [f"{folder}/{one}" for one in found]
        labels += [numbers[folder]] * len(found)
    if not files:
        raise ValueError(f"{root} holds no image in a class folder")
    return FileList(root, files, labels)


def in_order(files: FileList, names: Sequence[tuple[int, str]]) -> FileList | None:
    """Put the files in the order of these labels and names; None where they have others."""
    found = files.names()
    rows = {name: row for row, name in enumerate(found)}
    # A name that a class has twice does not tell which image it is.
    if not len(rows) == len(found) == len(names) or rows.keys() != set(names):
        return None
    return files if found == names else files.kept([rows[name] for name in names])


def image_batches(
    files: FileList,
    size: int,
    batch_size: int,
    workers: int | None = None,
    starts: Sequence[int] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images float32 ``[B, 3, size, size]`` in [0, 1] and labels, in order.

    An image of ``size`` pixels is taken as it is; others are resized and cropped as clean ones.
    `starts` are the first images of the batches to read; None: all.
    """
    rows = rows_of(len(files), batch_size, starts)
    dataset = TransformedFiles(files, _AsItIsOr(size))
    if len(rows) == 1:
        workers = 0  # a single batch is read sooner than they start
    for images, labels in read_batches(dataset, rows, workers=workers, what=f"{files.root} image"):
        yield to_float(images), labels


class _AsItIsOr:
    """The evaluation's transform, for images that are not yet of its size; picklable."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.resized = evaluation_transform(size)

    def __call__(self, image: Any) -> Tensor:
        if image.size != (self.size, self.size):
            return self.resized(image)
        v2 = import_torchvision("transforms.v2", purpose="reading image files")
        pixels: Tensor = v2.functional.pil_to_tensor(image)
        return pixels
