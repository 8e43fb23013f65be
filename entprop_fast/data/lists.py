"""Official lists of images: lines of text, and the two splits that they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from entprop_fast.data.members import inside

Listed = list[tuple[str, int]]  # file within the root, label


@dataclass(frozen=True)
class Splits:
    """What a data set's own files say is in it; nothing of the images has been read yet."""

    root: Path
    train: Listed
    test: Listed
    class_names: tuple[str, ...]


def fields(path: Path, count: int, *, last: bool = False) -> Iterator[list[str]]:
    """The fields of each line that is neither empty nor a comment.

    Args:
        path: of the text file.
        count: fields a line.
        last: the extra words belong to the last field, not to the first (names with spaces).

    Raises:
        ValueError: (while iterating) a line has fewer; the message names it.
    """
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = (
            line.strip().split(None, count - 1) if last else line.strip().rsplit(None, count - 1)
        )
        if len(found) < count:
            raise ValueError(f"{path}, line {number}: {line.strip()!r} has no {count} fields")
        yield found


def number(path: Path, text: str) -> int:
    """A whole number out of a list; ``ValueError`` names the file."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{path}: {text!r} is no whole number") from None


def check_splits(source: Path, splits: Splits, *, test_only: bool = False) -> Splits:
    """The same, once it is known to be usable.

    Raises:
        ValueError: no test images, or no training images unless ``test_only``; fewer than two
            classes; a label that is none of them; a file that lies outside of the root or is
            listed twice.
    """
    classes = len(splits.class_names)
    if classes < 2:
        raise ValueError(f"{source} has {classes} classes, at least 2 are needed")
    for what, listed in (("training", splits.train), ("test", splits.test)):
        if not listed and not (test_only and what == "training"):
            raise ValueError(f"{source} lists no {what} images")
        for file, label in listed:
            if not 0 <= label < classes:
                raise ValueError(
                    f"{source}: {what} image {file} has label {label}, the {classes} classes are "
                    f"0 to {classes - 1}"
                )
            if not inside(file):
                raise ValueError(f"{source}: {what} image {file!r} lies outside of {splits.root}")
    _check_once(source, (file for file, _ in [*splits.train, *splits.test]))
    return splits


def first_folder(data_dir: Path, names: Sequence[str], holds: str) -> Path | None:
    """The first of ``data_dir/name`` (``.``: itself) that holds that file or folder."""
    folders = (data_dir / name for name in names)
    return next((folder for folder in folders if (folder / holds).exists()), None)


def _check_once(source: Path, files: Iterable[str]) -> None:
    seen: set[str] = set()
    for file in files:
        if file in seen:
            raise ValueError(f"{source} lists {file} twice")
        seen.add(file)


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path.parent} lacks {path.name}")
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no list of images: {error}") from error
