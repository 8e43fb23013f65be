"""Write IDX files, as MNIST's are published."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from entprop_fast.lab.data import fashion_mnist
from entprop_fast.lab.data.idx_files import IdxFiles

_CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12}
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_bytes(values: NDArray[Any]) -> bytes:
    head = struct.pack(
        f">BBBB{values.ndim}I", 0, 0, _CODES[str(values.dtype)], values.ndim, *values.shape
    )
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()


def tiny(side: int = 28, classes: int = 10, each: int = 6) -> tuple[NDArray[Any], ...]:
    """Training images and labels, test images and labels (two thirds as many)."""
    generator = np.random.default_rng(side)
    parts: list[NDArray[Any]] = []
    for count in (each * classes, max(1, each * 2 // 3) * classes):
        labels = generator.permutation(np.arange(count) % classes).astype(np.uint8)
        parts += [generator.integers(0, 256, (count, side, side + 1), np.uint8), labels]
    return tuple(parts)


def write(
    folder: Path, parts: tuple[NDArray[Any], ...], *, zipped: bool = True, start: str = ""
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(NAMES, parts, strict=True):
        content = idx_bytes(values)
        if zipped:
            (folder / f"{start}{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{start}{name}").write_bytes(content)
    return folder


def tiny_fashion(folder: Path, patch: pytest.MonkeyPatch) -> IdxFiles:
    """A tiny Fashion-MNIST, whose checksums are the official ones meanwhile."""
    images, labels, test, test_labels = tiny(each=24)
    parts = images[:, :, :28], labels, test[:, :, :28], test_labels
    sums = tuple(hashlib.md5(idx_bytes(one)).hexdigest() for one in parts)
    patch.setattr(fashion_mnist, "MD5", sums)
    write(folder, parts)
    return IdxFiles(*(folder / f"{name}.gz" for name in NAMES))
