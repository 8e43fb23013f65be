"""What a folder of data sets holds: counts, classes, sizes, checksums, unreadable files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from entprop_fast.data import cifar
from entprop_fast.data.datasets import FILES, FOLDER, TENSORS, find_splits
from entprop_fast.data.image_data import ImageData
from entprop_fast.data.lists import Listed, Splits
from entprop_fast.data.official import SOURCES
from entprop_fast.data.read_image import describe_image, read_image
from entprop_fast.data.verify import in_threads
from entprop_fast.names import unknown

KNOWN = (*TENSORS, *FILES, "folder")

_WNID = re.compile(r"n\d{8}")


@dataclass
class Report:
    """One data set: `facts` to print, `problems` that training or a fair number would meet."""

    name: str
    where: Path
    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check(data_dir: Path, only: str | None = None) -> list[Report]:
    """Read everything of every data set in a folder.

    Args:
        data_dir: the folder, as ``--data-dir`` names it.
        only: one of ``KNOWN``; None: whatever is recognised.

    Raises:
        ValueError: an unknown name, or nothing that is known is in the folder.
        FileNotFoundError: no such folder; the data set of that name is not in it.
    """
    if only is not None and only not in KNOWN:
        raise unknown("dataset", only, KNOWN)
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: there is no such folder")
    reports: list[Report] = []
    for name in (only,) if only is not None else KNOWN:
        if only is None and not _recognised(name, data_dir, reports):
            continue
        reports.append(
            _check_tensors(name, data_dir) if name in TENSORS else _files(name, data_dir)
        )
    if not reports:
        raise ValueError(
            f"{data_dir} holds no data set that is known here ({', '.join(KNOWN)}); docs/data.md "
            "shows how each must look"
        )
    return reports


def _recognised(name: str, data_dir: Path, before: Sequence[Report]) -> bool:
    """Whether something of it is there; ImageNet and a plain folder look alike but for names."""
    if name in TENSORS:
        return bool(cifar.found_in(name, data_dir))
    train = data_dir / "train"
    if name == "imagenet":
        return train.is_dir() and any(_WNID.fullmatch(one.name) for one in train.iterdir())
    if name == "folder":
        return not before and (train.is_dir() or (data_dir / "train.txt").is_file())
    try:
        return FILES[name](data_dir) is not None
    except ValueError:
        return True  # there, and damaged


def _check_tensors(name: str, data_dir: Path) -> Report:
    places = cifar.found_in(name, data_dir)
    report = Report(name, places[0] if places else data_dir)
    for place in places:
        report.facts.append(("found", f"{place.name}{'' if place.is_dir() else ', an archive'}"))
    try:
        data: ImageData = cifar.load_cifar(name, data_dir, None, 0)
    except (ValueError, OSError) as error:
        report.problems.append(str(error))
        return report
    for what, labels in (("training", data.train_labels), ("test", data.test_labels)):
        report.facts.append((what, _counts(Counter(labels.tolist()), data.num_classes)))
    report.facts.append(("sizes", "32x32, RGB"))
    return report


def _files(name: str, data_dir: Path) -> Report:
    report = Report(name, data_dir)
    _archives(name, data_dir, report)
    try:
        splits = (
            find_splits(f"{FOLDER}{data_dir}", None)
            if name == "folder"
            else (find_splits(name, data_dir))
        )
    except (ValueError, OSError) as error:
        report.problems.append(str(error))
        return report
    report.where = splits.root
    _images(splits, report)
    official = SOURCES[name].counts if name in SOURCES else None
    found = (len(splits.train), len(splits.test), len(splits.class_names))
    if official is not None and found != official:
        report.problems.append(
            "the official set has {:,} training and {:,} test images of {:,} classes".format(
                *official
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


def _images(splits: Splits, report: Report) -> None:
    modes: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    for what, listed in (("training", splits.train), ("test", splits.test)):
        report.facts.append(
            (what, _counts(Counter(label for _, label in listed), len(splits.class_names)))
        )
        for (file, _), (size, mode, reason) in zip(listed, _inspected(splits, listed), strict=True):
            if reason:
                report.problems.append(f"{what} image {file} cannot be read: {reason}")
            else:
                modes[mode] += 1
                sizes.append(size)
    if sizes:
        for what, values in zip(("width", "height"), zip(*sizes, strict=True), strict=True):
            report.facts.append(
                (what, f"{min(values)} to {max(values)} pixels, median {median(values):g}")
            )
        report.facts.append(("modes", ", ".join(f"{m} {n:,}" for m, n in modes.most_common())))


Inspected = tuple[tuple[int, int], str, str]  # size, mode, why it cannot be read


def _inspected(splits: Splits, listed: Listed) -> list[Inspected]:
    def inspect(number: int) -> Inspected:
        path = splits.root / listed[number][0]
        try:
            read_image(path)
            return (*describe_image(path), "")
        except OSError as error:
            return (0, 0), "", str(error).removeprefix(f"{path}: ")

    return list(in_threads(inspect, len(listed)))


def _counts(labels: Counter[int], num_classes: int) -> str:
    of_class = [labels[label] for label in range(num_classes)]
    low, high = min(of_class), max(of_class)
    each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{sum(of_class):,} images, {num_classes:,} classes, {each} of each"
