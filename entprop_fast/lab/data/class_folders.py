"""Images in a folder for each class, named as the training set's classes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entprop_fast.lab import stopping
from entprop_fast.lab.data.augment import to_float
from entprop_fast.lab.data.file_transforms import evaluation_transform
from entprop_fast.lab.data.image_files import FileList, TransformedFiles
from entprop_fast.lab.data.imagenet_classes import IMAGENET_A, IMAGENET_R
from entprop_fast.lab.data.prefetch import read_batches
from entprop_fast.lab.data.stray_files import LeftOut, class_folders_in, is_image
from entprop_fast.optional import import_torchvision

_IMAGENET_CLASSES = 1000

# Title, the folder's usual names, and the classes among ImageNet's 1000 (None: all of them).
NATURAL: dict[str, tuple[str, tuple[str, ...], tuple[int, ...] | None]] = {
    "imagenet-a": ("ImageNet-A", ("imagenet-a", "ImageNet-A", "imagenet_a"), IMAGENET_A),
    "imagenet-r": ("ImageNet-R", ("imagenet-r", "ImageNet-R", "imagenet_r"), IMAGENET_R),
    "stylized": (
        "Stylized-ImageNet",
        ("stylized-imagenet/val", "Stylized-ImageNet/val", "imagenet-stylized/val"),
        None,
    ),
}


@dataclass(frozen=True)
class NaturalSet:
    """A further test set of the same classes or some of them.

    Attributes:
        title: its name.
        images: how many.
        classes: the network's outputs that are compared, int64; None: all.
        batches: images float32 ``[B, 3, S, S]`` in [0, 1] and labels among all the classes.
    """

    title: str
    images: int
    classes: Tensor | None
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]


def open_natural(
    name: str,
    folder: Path,
    class_names: Sequence[str],
    size: int,
    batch_size: int,
    *,
    workers: int | None = None,
) -> NaturalSet:
    """ImageNet-A, ImageNet-R or Stylized-ImageNet, from folders named by WordNet identifiers.

    -A and -R have 200 classes. A network of all 1000 is compared on these alone, as in their
    papers; one of other classes on those that the folders name.

    Args:
        name: a key of `NATURAL`.
        folder: where the set's folder is.
        class_names: of the network's outputs.
        size: pixels of the images that the network takes.
        batch_size: images in a batch.
        workers: processes that read, see `entprop_fast.data.PrefetchLoader`.

    Raises:
        FileNotFoundError: it is not there; the message says which folders were looked for.
        ValueError: a folder that is no class of the set, or no images.
    """
    title, usual, subset = NATURAL[name]
    root = next((folder / one for one in usual if (folder / one).is_dir()), None)
    if root is None:
        raise FileNotFoundError(f"{title} is not in {folder}: looked for {', '.join(usual)}")
    files = class_folders(root, class_names)
    classes = None
    if subset is not None:
        present = files.labels.unique()
        whole = len(class_names) == _IMAGENET_CLASSES
        classes = torch.tensor(subset) if whole else present
        foreign = sorted(set(present.tolist()) - set(classes.tolist()))
        if foreign:
            raise ValueError(f"{root / class_names[foreign[0]]} is no class of {title}")
    return NaturalSet(
        title, len(files), classes, lambda: image_batches(files, size, batch_size, workers)
    )


def class_folders(root: Path, class_names: Sequence[str]) -> FileList:
    """The images of a folder of class folders, by class and name.

    Raises:
        FileNotFoundError: the folder is missing.
        ValueError: a folder's name is no class, or there are no images.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder")
    numbers = {name: number for number, name in enumerate(class_names)}
    files, labels = [], []
    for folder in class_folders_in(root, LeftOut(), root.name):
        stopping.check()
        if folder not in numbers:
            known = ", ".join(class_names[:3])
            raise ValueError(
                f"{root / folder} is none of the {len(numbers)} classes ({known}, ...)"
            )
        for path in sorted((root / folder).iterdir()):
            if is_image(path.name):
                files.append(f"{folder}/{path.name}")
                labels.append(numbers[folder])
    if not files:
        raise ValueError(f"{root} holds no image in a class folder")
    return FileList(root, files, labels)


def in_order(files: FileList, names: Sequence[tuple[int, str]]) -> FileList | None:
    """The files in the order of these labels and names; None where they have others.

    Args:
        files: of corrupted images.
        names: of the clean ones, see `FileList.names`.
    """
    found = files.names()
    rows = {name: row for row, name in enumerate(found)}
    # A name that a class has twice does not tell which image it is.
    if not len(rows) == len(found) == len(names) or rows.keys() != set(names):
        return None
    return files if found == names else files.kept([rows[name] for name in names])


def image_batches(
    files: FileList, size: int, batch_size: int, workers: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images float32 ``[B, 3, size, size]`` in [0, 1] and labels, in order.

    An image of ``size`` pixels is taken as it is; others are resized and cropped as clean ones.

    Raises:
        UnreadableImage: (while iterating) a file cannot be read.
    """
    rows = torch.arange(len(files)).split(batch_size)
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
