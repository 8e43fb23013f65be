"""Read official lists of images: lines of text, MATLAB files, and the splits that they make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from entprop_fast.optional import require

Listed = list[tuple[str, int]]  # file within the root, label

CLASS_DEPTH = 3  # parts of a path: split, class, file


_MOST = 10_000_000  # no label or number of an image is more


@dataclass(frozen=True)
class Splits:
    """Hold what a data set's own files say is in it; nothing of the images has been read yet."""

    root: Path  # the folder that files are named from
    train: Listed  # training images
    test: Listed  # test images
    class_names: tuple[str, ...]  # of each label
    left_out: tuple[str, ...] = ()  # what lies among them and is not taken, a text for each kind
    # What one would want to know before training, left out files among it
    notes: tuple[str, ...] = ()


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read a text file's lines that are not empty, stripped, and their numbers from 1."""
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def fields(path: Path, count: int, *, last: bool = False) -> Iterator[list[str]]:
    """Yield the fields of each line that is neither empty nor a comment.

    Args:
        path: of the text file.
        count: fields a line.
        last: the extra words belong to the last field, not to the first (names with spaces).
    """
    for number, line in lines(path):
        if not line.startswith("#"):
            yield split_line(path, number, line, count, last=last)


def split_line(path: Path, number: int, line: str, count: int, *, last: bool = False) -> list[str]:
    """Split one line into its fields, see `fields`."""
    found = line.split(None, count - 1) if last else line.rsplit(None, count - 1)
    if len(found) < count:
        raise ValueError(f"{path}, line {number}: {line!r} has no {count} fields")
    return found


def number(path: Path, text: str) -> int:
    """Read a whole number out of a list; ``ValueError`` names the file."""
    try:
        found = int(text)
    except ValueError:
        raise ValueError(f"{path}: {text!r} is no whole number") from None
    if abs(found) > _MOST:  # a label of 10**12 would ask for as many classes
        raise ValueError(f"{path}: {text} is beyond {_MOST:,}: labels count from 0")
    return found


def read_matlab(path: Path, key: str) -> Any:
    """Read a variable of a MATLAB 5 file as a NumPy array of at least one dimension."""
    require("scipy", extra="train", purpose=f"reading {path.name}")
    from scipy.io import loadmat

    if not path.is_file():
        raise ValueError(f"{path.parent} lacks {path.name}")
    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True)[key])
    except Exception as error:  # scipy raises whatever damaged bytes lead it to
        raise ValueError(f"{path} cannot be read as MATLAB's {key}: {error!r}") from error


def first_folder(data_dir: Path, names: Sequence[str], holds: str) -> Path | None:
    """Return the first of ``data_dir/name`` (``.``: itself) that holds that file or folder."""
    folders = (data_dir / name for name in names)
    return next((folder for folder in folders if (folder / holds).exists()), None)


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path.parent} lacks {path.name}")
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no list of images: {error}") from error
