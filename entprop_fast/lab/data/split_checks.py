"""Find what is wrong with two lists of images, without reading an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entprop_fast.lab.data import lists
from entprop_fast.lab.data.file_sources import inside
from entprop_fast.lab.data.layout_hints import renames
from entprop_fast.lab.data.lists import Splits
from entprop_fast.lab.data.same_files import TEST, TRAINING, Line, ListedFiles

SHOWN = 5  # classes or files that a message names


def check_splits(source: Path, splits: Splits, *, test_only: bool = False) -> Splits:
    """Refuse lists that cannot be used; return the others with their notes."""
    problems, notes = find_problems(source, splits, test_only=test_only)
    if problems:
        raise ValueError(problems[0])
    return replace(splits, notes=tuple(notes))


def find_problems(
    source: Path, splits: Splits, *, test_only: bool = False
) -> tuple[list[str], list[str]]:
    """Find what keeps the lists from being trained and tested on, and what one wants to know.

    Problems: fewer than two classes; no images; a label that is no class; a file outside of the
    root; a file in both splits, in two classes or tested twice, however it is spelt or linked; a
    class without training images; a class whose folder is a copy of another's.
    Notes: what was left out, classes that are not tested, training files that count twice.
    """
    problems, notes = list(_labels(source, splits, test_only=test_only)), []
    if splits.left_out:
        notes.append(f"left out: {'; '.join(splits.left_out)}")
    if untested := _untested(splits):
        notes.append(untested)
    if repeated := _listed_twice(splits):
        problems.append(f"{source} lists {repeated}")
        return problems, notes
    files = ListedFiles(splits)
    linked: defaultdict[str, list[str]] = defaultdict(list)
    for first, second in files.pairs():
        harmless = first.split == second.split == TRAINING and first.label == second.label
        linked["" if harmless else _why(first, second)].append(f"{second.file} is {first.file}")
    if again := linked.pop("", []):
        notes.append(
            f"training images that are links to others of their class: {len(again):,} "
            f"({first_of(again)})"
        )
    problems += [
        f"{source}: files that are one file: {len(named):,} ({first_of(named)}): {why}"
        for why, named in linked.items()
    ]
    problems += [
        f"{splits.root}: {one} and {other} hold the same files, and are two classes: one is a copy"
        for one, other in files.copied_folders()
    ]
    return problems, notes


def empty_classes(labels: NDArray[np.integer[Any]], class_names: Sequence[str]) -> str:
    """Say which classes have no training image, and why, where that can be told; empty: none."""
    known = labels[(labels >= 0) & (labels < len(class_names))]
    counts = np.bincount(known, minlength=len(class_names))
    empty = np.flatnonzero(counts == 0).tolist()
    if not empty or not len(known):
        return ""
    if empty == [0]:
        return (
            f"no training image of class {_class(class_names, 0)}: labels must count from 0, these "
            "begin at 1"
        )
    return (
        f"no training image of {len(empty)} of {len(class_names)} classes: "
        f"{first_of([_class(class_names, label) for label in empty])}"
    )


def first_of(named: Sequence[str], shown: int = SHOWN) -> str:
    """Name the first ones, and how many more there are."""
    more = f" and {len(named) - shown:,} more" if len(named) > shown else ""
    return ", ".join(named[:shown]) + more


def _labels(source: Path, splits: Splits, *, test_only: bool) -> Iterator[str]:
    classes = len(splits.class_names)
    if classes < 2:
        yield f"{source} has {classes} classes, at least 2 are needed{_within(splits)}"
    for what, listed in ((TRAINING, splits.train), (TEST, splits.test)):
        if not listed and not (test_only and what == TRAINING):
            hint = renames(source) if what == TRAINING and source.is_dir() else ""
            yield f"{source} lists no {what} images{hint and ': '}{hint}"
        strange = [
            f"{file} has label {label}" for file, label in listed if not 0 <= label < classes
        ]
        if strange:
            yield (
                f"{source}: {what} image {first_of(strange)}, the {classes} classes are "
                f"0 to {classes - 1}"
            )
        if outside := [repr(file) for file, _ in listed if not inside(file)]:
            yield f"{source}: {what} image {first_of(outside)} lies outside of {splits.root}"
    labels = np.array([label for _, label in splits.train], dtype=np.int64)
    if not test_only and (empty := empty_classes(labels, splits.class_names)):
        yield f"{source}: {empty}"


def _class(class_names: Sequence[str], label: int) -> str:
    name = class_names[label]
    return name if name == str(label) else f"{label} ({name})"


def _untested(splits: Splits) -> str:
    tested = {label for _, label in splits.test}
    names = [name for label, name in enumerate(splits.class_names) if label not in tested]
    if not names or not tested:
        return ""
    return f"no test image of {len(names)} of {len(splits.class_names)} classes: {first_of(names)}"


def _listed_twice(splits: Splits) -> str:
    seen: dict[str, Line] = {}
    for split, listed in ((TRAINING, splits.train), (TEST, splits.test)):
        for file, label in listed:
            entry = Line(split, file, label)
            if (first := seen.setdefault(file, entry)) is not entry:
                return f"{file} twice: {_why(first, entry)}"
    return ""


def _why(first: Line, second: Line) -> str:
    if first.split != second.split:
        return "a training image would be a test image"
    if first.label != second.label:
        return "an image would be of two classes"
    return "it would count twice"


def _within(splits: Splits) -> str:
    """Say whether the only class's folder holds folders that look like the classes."""
    parts = [Path(file).parts for file, _ in splits.train]
    below = sorted({part[2] for part in parts if len(part) > lists.CLASS_DEPTH})
    return f"; the folders {first_of(below)} in it: are those the classes?" if below else ""
