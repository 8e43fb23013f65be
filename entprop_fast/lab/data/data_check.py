"""Check what a data set holds, and what a person would want to know before training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entprop_fast.lab.data import emoji_set
from entprop_fast.lab.data.contents import (
    NAMED,
    Contents,
    Watch,
    duplicates,
    read_files,
    read_tensors,
)
from entprop_fast.lab.data.contents import unwatched as _unwatched
from entprop_fast.lab.data.datasets import (
    DATASETS,
    EMBEDDED,
    FILES,
    FOLDER,
    PREFIXES,
    load,
    locate_splits,
)
from entprop_fast.lab.data.folder_layouts import is_tiny_imagenet
from entprop_fast.lab.data.image_data import ImageData
from entprop_fast.lab.data.lists import Splits
from entprop_fast.lab.data.official_files import SOURCES
from entprop_fast.lab.data.same_files import TEST, TRAINING
from entprop_fast.lab.data.split_checks import find_problems, first_of
from entprop_fast.lab.data.stray_files import LeftOut, image_paths, is_image
from entprop_fast.lab.data.tensor_sets import TENSORS, is_tensor_set, path_of, prefix_of
from entprop_fast.name_errors import unknown

KNOWN = (*TENSORS, *FILES, "folder")

UNEVEN = 10  # times as many images of one class as of another

_TERMS = ("LICENSE", "LICENCE", "COPYING")  # what the names of such files begin with
_WNID = re.compile(r"n\d{8}")


@dataclass
class Report:
    """Report on one data set."""

    name: str  # of the data set
    where: Path | None  # it is
    facts: list[tuple[str, str]] = field(default_factory=list)  # what to print of it
    # What would stop a run, make it leave images out, or make an accuracy wrong
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what else one would want to know

    @property
    def title(self) -> str:
        """Return its name, and where it is unless the name says so."""
        if self.where is None or self.name == f"{FOLDER}{self.where}":
            return self.name
        return f"{self.name}, in {self.where}"


def is_data_set(name: str) -> bool:
    """Return whether ``train --dataset`` takes it: a data set, not a folder of some."""
    return name.startswith(PREFIXES) or name in DATASETS


def check(data_dir: Path, only: str | None = None, watch: Watch[Any] = _unwatched) -> list[Report]:
    """Read everything of every data set in a folder.

    Args:
        data_dir: the folder, as ``--data-dir`` names it.
        only: one of ``KNOWN``; None: whatever is recognised.
        watch: passes on what is read, and may show how far it is.
    """
    if only is not None and only not in KNOWN:
        raise unknown("dataset", only, KNOWN)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: there is no such folder")
    found: list[str] = []
    for name in KNOWN if only is None else ():
        if _recognised(name, data_dir, found):
            found.append(name)
    if only is None and not found:
        try:
            locate_splits(f"{FOLDER}{data_dir}", None)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{data_dir} holds no data set that is known here ({', '.join(KNOWN)}): {error}"
            ) from error
    return [
        check_one(f"{FOLDER}{data_dir}", None, watch)
        if name == "folder"
        else check_one(name, data_dir, watch)
        for name in ((only,) if only is not None else found)
    ]


def check_one(name: str, data_dir: Path | None, watch: Watch[Any] = _unwatched) -> Report:
    """Read everything of one data set, named as ``train --dataset`` takes it."""
    if not is_data_set(name):
        raise unknown("dataset", name, DATASETS)
    if name == EMBEDDED or is_tensor_set(name):
        return _check_tensors(name, data_dir)
    return _check_files(name, data_dir, watch)


def _recognised(name: str, data_dir: Path, before: Sequence[str]) -> bool:
    """Return whether something of it is there; names tell ImageNet from a plain folder."""
    train = data_dir / "train"
    if name == "imagenet":
        wnids = train.is_dir() and any(_WNID.fullmatch(one.name) for one in train.iterdir())
        return wnids and not is_tiny_imagenet(data_dir)
    if name == "folder":
        return not before and (train.is_dir() or (data_dir / "train.txt").is_file())
    try:
        if name in TENSORS:
            return bool(TENSORS[name].found_in(data_dir))
        return FILES[name](data_dir) is not None
    except ValueError:
        return True  # there, and damaged


def _check_tensors(name: str, data_dir: Path | None) -> Report:
    places, about = [], ""
    try:
        if name in TENSORS:
            about, folder = TENSORS[name].about, data_dir or TENSORS[name].usual
            places = [] if folder is None else TENSORS[name].found_in(folder)
    except ValueError as error:  # there, and damaged
        return Report(name, data_dir, problems=[str(error)])
    report = Report(name, places[0] if places else data_dir)
    for place in places:
        report.facts.append(("found", f"{place.name}{'' if place.is_dir() else ', an archive'}"))
    try:
        if about := about or _licences(name, data_dir):
            report.facts.append(("from", about))
        data = load(name, data_dir=data_dir)
    except (ValueError, OSError) as error:
        report.problems.append(str(error))
        return report
    assert isinstance(data, ImageData)
    splits = {
        TRAINING: (data.train_images, data.train_labels),
        TEST: (data.test_images, data.test_labels),
        **{f"shift {one.name}": (one.images, one.labels) for one in data.shifts},
    }
    contents = read_tensors(splits)
    _classes(
        contents.readable, data.class_names or [str(i) for i in range(data.num_classes)], report
    )
    report.facts += [(f"shift {one.name}", f"{len(one.labels):,} images") for one in data.shifts]
    report.facts.append(("sizes", "{}x{}, {}".format(*data.image_shape[1:], _mode(data))))
    _duplicates(contents, report, official=prefix_of(name) is None and name != emoji_set.NAME)
    return report


def _licences(name: str, data_dir: Path | None) -> str:
    """Name the files beside a set that is called by its path that say under which terms it is."""
    prefix = prefix_of(name)
    if prefix is None:
        return ""
    path = path_of(name, prefix, data_dir)
    folder = path if path.is_dir() else path.parent
    found = folder.iterdir() if folder.is_dir() else ()
    named = sorted(one.name for one in found if one.stem.upper().startswith(_TERMS))
    return f"see {', '.join(named)} beside it" if named else ""


def _mode(data: ImageData) -> str:
    return {1: "grey", 3: "RGB"}.get(data.image_shape[0], f"{data.image_shape[0]} channels")


def _check_files(name: str, data_dir: Path | None, watch: Watch[Any]) -> Report:
    report = Report(name, data_dir)
    if data_dir is not None:
        _archives(name, data_dir, report)
    try:
        source, splits = locate_splits(name, data_dir)
    except (ValueError, OSError) as error:
        report.problems.append(str(error))
        return report
    report.where = splits.root
    problems, notes = find_problems(source, splits)
    report.problems += problems
    report.notes += notes
    train, test = (
        [line for line in part if 0 <= line[1] < len(splits.class_names)]
        for part in (splits.train, splits.test)
    )
    known = Splits(splits.root, train, test, splits.class_names)
    contents = read_files(known, watch)
    _classes(
        Counter(
            (what, label)
            for what, part in ((TRAINING, known.train), (TEST, known.test))
            for _, label in part
        ),
        splits.class_names,
        report,
    )
    report.facts += contents.facts()
    _unreadable(contents, known, report)
    counts = SOURCES[name].counts if name in SOURCES else None
    found = (len(splits.train), len(splits.test), len(splits.class_names))
    _duplicates(contents, report, official=counts == found)
    _unlisted(splits, report)
    if counts is not None and counts != found:
        report.problems.append(
            "the official set has {:,} training and {:,} test images of {:,} classes".format(
                *counts
            )
        )
    return report


def _archives(name: str, data_dir: Path, report: Report) -> None:
    for official in SOURCES[name].files if name in SOURCES else ():
        path = data_dir / official.name
        if path.is_file():
            same = official.is_at(path)
            report.facts.append((official.name, "as published" if same else "differs"))
            if not same:
                report.problems.append(f"{path} is not the published {official}")


def _classes(
    counts: Mapping[tuple[str, int], int], class_names: Sequence[str], report: Report
) -> None:
    """Report how many images each class has, and what guessing alone would score."""
    for split in (TRAINING, TEST):
        of_class = [counts.get((split, label), 0) for label in range(len(class_names))]
        if not sum(of_class):
            continue
        low, high = min(of_class), max(of_class)
        each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        text = f"{sum(of_class):,} images, {len(class_names):,} classes, {each} of each"
        report.facts.append((split, text))
        rare, frequent = class_names[of_class.index(low)], class_names[of_class.index(high)]
        if high >= UNEVEN * low:
            share = f"; who always answers it scores {100 * high / sum(of_class):.1f} %"
            report.notes.append(
                f"{split} images are uneven: {low:,} of {rare}, {high:,} of {frequent}"
                f"{share if split == TEST else ''}"
            )
    report.facts.append(("classes", first_of(list(class_names), NAMED)))


def _unreadable(contents: Contents, splits: Splits, report: Report) -> None:
    for (split, reason), files in contents.unreadable.items():
        named = first_of(files, NAMED)
        report.problems.append(
            f"{split} images that cannot be read: {len(files):,}, {reason} ({named})"
        )
    listed = {label for _, label in splits.train}
    empty = [splits.class_names[one] for one in listed if not contents.readable[TRAINING, one]]
    if empty:
        report.problems.append(f"no training image can be read of {first_of(sorted(empty), NAMED)}")
    for files, what in (
        (contents.animated, "images of several frames, of which the first is read"),
        (contents.turned, "images that EXIF asks to turn, read as they are stored"),
    ):
        if files:
            report.notes.append(f"{what}: {len(files):,} ({first_of(files, NAMED)})")


def _duplicates(contents: Contents, report: Report, *, official: bool) -> None:
    """Report images that are there twice: a fault, but of an official set, whose scores have it."""
    for text, wrong in duplicates(contents.same):
        if official:
            report.notes.append(f"{text} (in the published set as well)")
        else:
            (report.problems if wrong else report.notes).append(text)


def _unlisted(splits: Splits, report: Report) -> None:
    """Report images among the listed ones, in their topmost folders, that no list names."""
    listed = {file for part in (splits.train, splits.test) for file, _ in part}
    left_out, extra = LeftOut(), []
    for top in sorted({file.partition("/")[0] for file in listed if "/" in file}):
        if (splits.root / top).is_dir():
            extra += [f"{top}/{one}" for one in image_paths(splits.root / top, left_out, top)]
    beside = any("/" not in file for file in listed)
    extra += [one.name for one in splits.root.iterdir() if beside and is_image(one.name)]
    if missed := [file for file in extra if file not in listed]:
        report.notes.append(f"images in no list: {len(missed):,} ({first_of(missed, NAMED)})")
