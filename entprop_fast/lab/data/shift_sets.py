"""Open further labelled sets of a data set's classes: natural shifts, in their own layouts.

A path is read as what it holds: an .npz file; IDX files; CIFAR-10.1's two arrays; an array for each
kind of corruption beside ``labels.npy`` (CIFAR-10-C, CIFAR-10-C-bar); a folder for each class
(ImageNet-Sketch), each by its number (ImageNet-v2); or those within a folder for each kind and
severity (ImageNet-C-bar, ImageNet-3DCC).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entprop_fast.lab.data.datasets import FOLDER, PREFIXES, ImageSet
from entprop_fast.lab.data.idx_files import find_idx, load_idx
from entprop_fast.lab.data.image_data import ImageData, ShiftSet, is_shift_name
from entprop_fast.lab.data.image_files import FileList
from entprop_fast.lab.data.image_values import to_float
from entprop_fast.lab.data.natural_sets import NaturalSet
from entprop_fast.lab.data.npz_files import (
    class_names_of,
    images_and_labels,
    load_npy,
    load_npz,
    pixels_of,
    read_arrays,
)
from entprop_fast.lab.data.shift_folders import folder_set
from entprop_fast.lab.data.tensor_sets import IDX, NPZ
from entprop_fast.lab.data.verify import digest_of

CIFAR_10_1 = ("cifar10.1_v6", "cifar10.1_v4")  # what its files' names begin with, the first first
LABELS = "labels.npy"


class Given(NamedTuple):
    """Name a set, and where it is."""

    name: str
    place: str


def read_shift(text: str) -> Given:
    """Take ``NAME=PATH`` apart.

    Raises:
        ValueError: it is something else.
    """
    name, equals, place = text.partition("=")
    if not equals or not place or not is_shift_name(name):
        raise ValueError(
            f"shift={text!r}: expected NAME=PATH, such as sketch=data/sketch or new=npz:new.npz"
        )
    return Given(name, place)


def open_shifts(
    texts: Sequence[str], data: ImageSet, batch_size: int, *, workers: int | None = None
) -> list[NaturalSet]:
    """Open the sets that a data set carries, and those that are named as ``NAME=PATH``.

    Raises:
        FileNotFoundError: one is not there.
        ValueError: one is of other classes or images, or cannot be read; or two have one name.
    """
    carried = data.shifts if isinstance(data, ImageData) else ()
    found = [_of_tensors(one.name, one, f"comes with {data.name}", batch_size) for one in carried]
    for given in map(read_shift, texts):
        if any(one.title == given.name for one in found):
            raise ValueError(f"shift={given.name}={given.place}: there are two of that name")
        found.append(_open(given, data, batch_size, workers))
    return found


def _open(given: Given, data: ImageSet, batch_size: int, workers: int | None) -> NaturalSet:
    kind, path = _kind_and_path(given)
    if kind == FOLDER:
        return folder_set(given.name, path, data, batch_size, workers)
    if kind == LABELS:
        return _of_arrays(given.name, path, data, batch_size)
    source, images, labels = _READERS[kind](path, given, data)
    _check_classes(given, labels, (), data)
    _check_shape(given, images.shape[1:], data)
    return _of_tensors(given.name, ShiftSet(given.name, images, labels), source, batch_size)


def _kind_and_path(given: Given) -> tuple[str, Path]:
    """Return what a set is read as, by what is written before its path or by what is there."""
    for prefix in PREFIXES:
        if given.place.startswith(prefix):
            path = Path(given.place.removeprefix(prefix)).expanduser()
            if given.place == prefix:
                raise ValueError(f"shift={given.name}={prefix} names no path")
            if not (path.exists() or (prefix == "idx:" and path.parent.is_dir())):
                raise FileNotFoundError(
                    f"shift={given.name}={given.place}: there is no such file or folder"
                )
            return prefix, path
    path = Path(given.place).expanduser()
    if path.suffix == ".npz" and path.exists():
        return NPZ, path
    if any((path / f"{one}_data.npy").is_file() for one in CIFAR_10_1):
        return CIFAR_10_1[0], path
    if (path / LABELS).is_file():
        return LABELS, path
    if find_idx(path) is not None:
        return IDX, path
    if not path.is_dir():
        raise FileNotFoundError(
            f"shift={given.name}={given.place}: there is no such file or folder"
        )
    return FOLDER, path


def _npz(path: Path, given: Given, data: ImageSet) -> tuple[str, Tensor, Tensor]:
    """Read the test images of a data set in a file, or all of its images."""
    arrays = read_arrays(path, given.name)
    if "images" in arrays and not {"test", "groups", "shift"} & arrays.keys():
        images, labels = images_and_labels(arrays, "images", "labels", path)
        names = class_names_of(arrays.get("class_names"), path)
    else:
        found = load_npz(given.name, path)
        images, labels, names = found.test_images, found.test_labels, found.class_names
    _check_classes(given, labels, names, data)
    return f"{path}", images, labels


def _idx(path: Path, given: Given, data: ImageSet) -> tuple[str, Tensor, Tensor]:
    """Read the test images of an IDX set."""
    found = load_idx(given.name, path)
    _check_classes(given, found.test_labels, found.class_names, data)
    return f"{path}, its test images", found.test_images, found.test_labels


def _cifar_10_1(path: Path, given: Given, data: ImageSet) -> tuple[str, Tensor, Tensor]:
    """Read CIFAR-10.1: 2,000 images (v6) that were collected anew."""
    version = next(one for one in CIFAR_10_1 if (path / f"{one}_data.npy").is_file())
    images, labels = (load_npy(path / f"{version}_{one}.npy") for one in ("data", "labels"))
    made = pixels_of(np.array(images), f"{version}_data.npy in {path}")
    return f"official CIFAR-10.1, {version[-2:]}", made, _labels(labels, len(made), path, data)


_READERS: dict[str, Callable[[Path, Given, ImageSet], tuple[str, Tensor, Tensor]]] = {
    NPZ: _npz,
    IDX: _idx,
    CIFAR_10_1[0]: _cifar_10_1,
}


def _of_tensors(name: str, one: ShiftSet, source: str, batch_size: int) -> NaturalSet:
    def batches(starts: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        for start in starts:
            rows = slice(start, start + batch_size)
            yield to_float(one.images[rows]).float(), one.labels[rows]

    def state() -> str:
        digest = hashlib.sha256(f"{one.images.dtype} {tuple(one.images.shape)}".encode())
        for part in (one.images, one.labels):
            digest.update(part.contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    return NaturalSet(name, len(one.labels), None, batches, state, source)


def _of_arrays(name: str, path: Path, data: ImageSet, batch_size: int) -> NaturalSet:
    """Open an array for each kind of corruption, all of the images that ``labels.npy`` is of."""
    kinds = sorted(one for one in path.glob("*.npy") if one.name != LABELS)
    labels = load_npy(path / LABELS)
    if not kinds:
        raise ValueError(f"{path} holds {LABELS} and no array of images")
    given = _labels(labels, labels.size, path, data)
    arrays = [load_npy(one) for one in kinds]
    channels, height, width = data.image_shape
    wanted = (len(labels), height, width, channels)
    for one, array in zip(kinds, arrays, strict=True):
        if array.dtype != np.uint8 or array.shape != wanted:
            raise ValueError(f"{one} holds {array.dtype} {array.shape}; uint8 {wanted} wanted")
    count = len(labels)

    def batches(starts: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        for start in starts:
            parts, row, end = [], start, min(start + batch_size, count * len(arrays))
            while row < end:  # a batch may end one kind and begin the next
                kind, first = divmod(row, count)
                last = min(count, first + end - row)
                parts.append(np.array(arrays[kind][first:last]))
                row += last - first
            images = torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2)
            yield to_float(images), given[torch.arange(start, end) % count]

    source = f"{path}: {len(kinds)} kinds ({', '.join(one.stem for one in kinds)})"
    files = FileList(path, [one.name for one in (path / LABELS, *kinds)], [0] * (len(kinds) + 1))
    return NaturalSet(name, count * len(kinds), None, batches, lambda: digest_of(files), source)


def _labels(labels: NDArray[Any], count: int, path: Path, data: ImageSet) -> Tensor:
    if not count:
        raise ValueError(f"{path} holds no image")
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise ValueError(
            f"{path}: labels are {labels.dtype} {labels.shape}; {count} whole numbers wanted"
        )
    if not 0 <= labels.min() <= labels.max() < data.num_classes:
        raise ValueError(
            f"{path}: labels are {labels.min()} to {labels.max()}, the classes of {data.name} are "
            f"0 to {data.num_classes - 1}"
        )
    return torch.from_numpy(np.array(labels).astype(np.int64))


def _check_classes(given: Given, labels: Tensor, names: Sequence[str], data: ImageSet) -> None:
    """Refuse a set of other classes, by their names where both have some."""
    for ours, theirs in zip(data.class_names, names, strict=False):
        if ours != theirs:
            raise ValueError(
                f"shift={given.name}={given.place} has a class {theirs!r} where {data.name} has "
                f"{ours!r}"
            )
    classes = len(names) or (int(labels.max()) + 1 if len(labels) else 0)
    if (classes > data.num_classes) or (names and classes != data.num_classes):
        raise ValueError(
            f"shift={given.name}={given.place} has {classes} classes, {data.name} "
            f"{data.num_classes}"
        )
    if not len(labels):
        raise ValueError(f"shift={given.name}={given.place} holds no image")


def _check_shape(given: Given, shape: Sequence[int], data: ImageSet) -> None:
    if tuple(shape) != data.image_shape:
        raise ValueError(
            f"shift={given.name}={given.place} has images {list(shape)}, {data.name} "
            f"{list(data.image_shape)}"
        )
