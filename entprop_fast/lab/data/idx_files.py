"""Read MNIST's IDX files, gzip or unpacked: MNIST, Fashion-MNIST, KMNIST, EMNIST and their like.

An IDX file is two zero bytes, a byte for the type, a byte for the number of dimensions, each
dimension as a big-endian uint32, and the values.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entprop_fast.lab.data.array_set import bytes_of, data_set_of, labels_of
from entprop_fast.lab.data.image_data import ImageData

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4"}  # and floats, which nobody has here
# What the files' names begin with.
_SPLITS = {"train": ("train",), "test": ("t10k", "test")}
_DIMENSIONS = {"images": 3, "labels": 1}
_EMNIST = "emnist-"  # its pictures are transposed, and a mapping file names its classes


class IdxFiles(NamedTuple):
    """Name the four files of a data set."""

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path


def find_idx(path: Path) -> IdxFiles | None:
    """Find the four files: in a folder, or those whose names begin as ``path`` does; else None.

    Raises:
        ValueError: some of the four are missing, or there are several sets.
    """
    folder, beginning = (path, "") if path.is_dir() else (path.parent, f"{path.name}-")
    if not folder.is_dir():
        return None
    beginnings = [beginning] if beginning else _beginnings(folder)
    if len(beginnings) > 1:
        named = ", ".join(str(folder / one.rstrip("-")) for one in beginnings)
        raise ValueError(f"{folder} holds {len(beginnings)} sets: name one of {named}")
    for start in beginnings:
        found: dict[str, Path] = {}
        lacking = []
        for field in IdxFiles._fields:
            split, _, what = field.partition("_")
            if (one := _file(folder, start, _SPLITS[split], what)) is not None:
                found[field] = one
            else:
                lacking.append(_pattern(start, split, what))
        if not lacking:
            return IdxFiles(**found)
        if found:
            raise ValueError(f"{folder} lacks {lacking[0]}, or the same with .gz")
    return None


def load_idx(name: str, path: Path) -> ImageData:
    """Load the images of four IDX files, uint8 ``[N, 1, H, W]``.

    EMNIST's, which are called so, are turned as their paper shows them, and its letters, which
    count from 1, count from 0 here.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are no such files, are cut off, or do not belong together.
    """
    files = find_idx(path)
    if files is None:
        raise FileNotFoundError(
            f"data set {name!r}: {path} holds no IDX files; train-images-idx3-ubyte, "
            "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte are "
            "wanted, or the same with .gz"
        )
    return read_set(name, files)


def read_set(
    name: str,
    files: IdxFiles,
    class_names: tuple[str, ...] = (),
    md5: tuple[str, ...] | None = None,
) -> ImageData:
    """Read four files; ``md5`` are those of their unpacked bytes, in the order of `IdxFiles`.

    Raises:
        ValueError: as `load_idx`, or bytes that are not the official ones.
    """
    train, train_labels, test, test_labels = (
        read_idx(path, _DIMENSIONS[field.partition("_")[2]], digest)
        for field, path, digest in zip(IdxFiles._fields, files, md5 or (None,) * 4, strict=True)
    )
    emnist = files.train_images.name.startswith(_EMNIST)
    first = int(emnist and "letters" in files.train_images.name)
    pair = _pair(files.train_images, files.train_labels, train, train_labels, emnist, first)
    test_pair = _pair(files.test_images, files.test_labels, test, test_labels, emnist, first)
    if emnist and not class_names:
        classes = int(max(pair[1].max(), test_pair[1].max())) + 1
        class_names = _emnist_names(files.train_images, classes, first)
    return data_set_of(name, files.train_images, pair, test_pair, class_names)


def _pair(
    path: Path,
    labels_path: Path,
    images: NDArray[Any],
    labels: NDArray[Any],
    transposed: bool,
    first: int,
) -> tuple[Tensor, Tensor]:
    """Return images ``[N, 1, H, W]`` and labels that belong together, in memory of their own."""
    if images.dtype != np.uint8 or not images.size:
        raise ValueError(f"{path} holds {images.dtype} {images.shape}; uint8 images wanted")
    turned = images.swapaxes(1, 2) if transposed else images
    numbers = labels_of(labels, len(images), str(labels_path), str(path), first=first)
    return torch.from_numpy(turned.copy(order="C")).unsqueeze(1), numbers


def read_idx(path: Path, dimensions: int, md5: str | None = None) -> NDArray[Any]:
    """Read one file, of whole numbers in so many dimensions.

    Raises:
        ValueError: it is none, is cut off or too long, or has another ``md5``, unpacked.
    """
    ahead = 4 + 4 * dimensions
    with _opened(path) as file:
        head = file.read(ahead)
        if len(head) < ahead or head[:2] != b"\0\0" or head[2] not in _TYPES:
            raise ValueError(f"{path} is no IDX file of whole numbers: it begins {head[:4].hex()}")
        if head[3] != dimensions:
            raise ValueError(f"{path} has {head[3]} dimensions; {dimensions} expected")
        shape = struct.unpack(f">{dimensions}I", head[4:])
        dtype = np.dtype(_TYPES[head[2]])
        wanted = bytes_of(str(path), shape, dtype)
        content = file.read(wanted + 1)  # no more, whatever a small gzip file unpacks to
    if len(content) != wanted:
        found_bytes = "more" if len(content) > wanted else f"{len(content):,}"
        raise ValueError(
            f"{path} says {wanted:,} bytes {shape} and holds {found_bytes}: it is cut off, or "
            "damaged"
        )
    if md5 is not None:
        found = hashlib.md5(head + content, usedforsecurity=False).hexdigest()
        if found != md5:
            raise ValueError(f"{path} has md5 {found} unpacked, the official file {md5}")
    return np.frombuffer(content, dtype).reshape(shape)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file, unpacked where it is zipped; what reading it raises is a `ValueError`."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _beginnings(folder: Path) -> list[str]:
    """List what the names of training images in a folder begin with; the plain name is first."""
    found = set()
    for one in folder.iterdir():
        start, split, rest = one.name.partition("train-images")
        if split and (not start or start.endswith("-")) and rest[1:].startswith("idx3"):
            found.add(start)
    return [""] if "" in found or not found else sorted(found)


def _pattern(start: str, split: str, what: str) -> str:
    return f"{start}{' or '.join(_SPLITS[split])}-{what}-idx{_DIMENSIONS[what]}-ubyte"


def _file(folder: Path, start: str, splits: tuple[str, ...], what: str) -> Path | None:
    """Return a file of the set, unpacked before zipped; some copies have a point for the dash."""
    for split in splits:
        for dash in "-.":
            for suffix in ("", ".gz"):
                end = f"{what}{dash}idx{_DIMENSIONS[what]}-ubyte{suffix}"
                if (path := folder / f"{start}{split}-{end}").is_file():
                    return path
    return None


def _emnist_names(images: Path, classes: int, first: int) -> tuple[str, ...]:
    """Read the characters of the classes from EMNIST's mapping file, where it lies beside."""
    start = images.name.partition("-train-")[0]
    path = images.parent / f"{start}-mapping.txt"
    if not path.is_file():
        return ()
    try:
        rows = [[int(one) for one in line.split()] for line in path.read_text().splitlines()]
        names = {row[0] - first: chr(row[1]) for row in rows if row}
        listed = tuple(names[label] for label in range(classes))
        if len(set(listed)) < classes:
            raise ValueError("two have one name")
        return listed
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"{path} is no list of {classes} labels and characters") from error
