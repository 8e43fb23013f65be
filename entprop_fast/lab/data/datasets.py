"""Load a data set by its name."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

import numpy as np

from entprop_fast.lab.data import fine_grained, folder_layouts
from entprop_fast.lab.data.digits import load_digits
from entprop_fast.lab.data.fewer_images import fewer_tests, fewer_training
from entprop_fast.lab.data.image_data import ImageData
from entprop_fast.lab.data.image_files import IMAGE_SIZE, FileList, ImageFiles
from entprop_fast.lab.data.layout_hints import without_split
from entprop_fast.lab.data.lists import Listed, Splits
from entprop_fast.lab.data.official_files import SOURCES, missing
from entprop_fast.lab.data.read_image import describe_image
from entprop_fast.lab.data.split_checks import check_splits, empty_classes
from entprop_fast.lab.data.subset import stratified_subset
from entprop_fast.lab.data.tensor_sets import (
    BY_PATH,
    TENSORS,
    is_tensor_set,
    load_tensors,
    path_of,
)
from entprop_fast.lab.data.verify import summary, unreadable
from entprop_fast.name_errors import unknown

ImageSet = ImageData | ImageFiles
Say = Callable[[str], None]

EMBEDDED = "digits"
FILES: dict[str, Callable[[Path], Splits | None]] = {
    "cub": fine_grained.cub,
    "pets": fine_grained.pets,
    "cars": fine_grained.cars,
    "imagenet": folder_layouts.imagenet,
}
FOLDER = "folder:"  # and its path
PREFIXES = (FOLDER, *BY_PATH)
DATASETS = (EMBEDDED, *TENSORS, *FILES, *(f"{one}PATH" for one in PREFIXES))

_OFFICIAL_CORRUPTIONS = {"imagenet": "imagenet-c"}

_HEADERS = 64  # of files, spread over the list
_NEAR = 0.85  # of 224: images that are hardly enlarged
_STEP = 4  # pixels


@overload
def load(
    name: Literal["digits", "cifar10", "cifar100", "fashion_mnist", "emoji"],
    *,
    data_dir: str | Path | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
    test_only: bool = False,
    say: Say | None = None,
) -> ImageData: ...


@overload
def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
    test_only: bool = False,
    say: Say | None = None,
) -> ImageSet: ...


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
    test_only: bool = False,
    say: Say | None = None,
) -> ImageSet:
    """Load a data set with its training and test split; docs/data.md says what each needs.

    ``digits``: scikit-learn's 1797 handwritten 8x8 digits, which come with its package; 500
    stratified images by ``seed`` are the test set. ``cifar10``, ``cifar100``, ``fashion_mnist``,
    ``emoji``, ``idx:PATH``, ``npz:PATH``: whole tensors. ``cub``, ``pets``, ``cars``, ``imagenet``
    and ``folder:PATH`` (``train`` and ``test`` or ``val`` within PATH): files, every one of which
    is opened once. Training images that cannot be read are named and left out; unreadable test
    images are an error.

    Args:
        name: one of ``DATASETS``.
        data_dir: folder of its files; None for an embedded one. PATH is taken from there.
        train_size: training images to keep, a stratified subset; at one seed every subset lies
            within each larger one. None keeps all.
        test_size: test images to keep, likewise, but the same ones at every seed.
        seed: of the digits' split and the subset, 0 to 2^32 - 1.
        image_size: height and width of images that are read from files, None for 224.
        test_only: the training images of a data set of files are not opened, and may be missing.
        say: is told which images are left out, and what takes long; None: a warning tells.

    Raises:
        FileNotFoundError: it is not there; the message says what to fetch and where to put it.
        ValueError: unknown name, ``train_size`` or ``test_size`` below the number of classes or
            above that of the images, a seed out of range, an argument that the data set does not
            take, files that are damaged, cut off or no such data set.
        ImportError: a library that it needs is not installed.
    """
    check_known(name)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed = {seed} must be between 0 and {2**32 - 1}")
    folder = None if data_dir is None else Path(data_dir)
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"--data-dir {data_dir}: there is no such folder")
    if (name == EMBEDDED or is_tensor_set(name)) and image_size is not None:
        raise ValueError(f"image_size = {image_size}: the images of {name!r} have one size")
    if name == EMBEDDED:
        if folder is not None:
            raise ValueError(f"data set {name!r} is embedded and takes no --data-dir")
        return fewer_tests(load_digits(train_size, seed), test_size)
    if is_tensor_set(name):
        return fewer_tests(fewer_training(load_tensors(name, folder), train_size, seed), test_size)
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size = {image_size} must be at least 1")
    splits = find_splits(name, folder, test_only=test_only)
    for note in splits.notes:
        _tell(f"data set {name!r}: {note}", say)
    _compare_counts(name, splits, say)
    if train_size is not None:
        splits = _fewer(name, splits, train_size, seed)
    data = fewer_tests(_image_files(name, splits, image_size or IMAGE_SIZE, say), test_size)
    return data if test_only else _without_unreadable(data, say)


def check_known(name: str) -> None:
    """Refuse a name that no data set has; whether its files are there is not looked at.

    Raises:
        ValueError: unknown name.
    """
    if name not in DATASETS and not name.startswith(PREFIXES):
        if Path(name).is_dir():
            raise ValueError(f"dataset {name!r} is a folder: --dataset {FOLDER}{name}")
        raise unknown("dataset", name, DATASETS)


def find_splits(name: str, data_dir: Path | None, *, test_only: bool = False) -> Splits:
    """List the images of a data set of files; no training images only if ``test_only``."""
    source, found = locate_splits(name, data_dir)
    return check_splits(source, found, test_only=test_only)


def locate_splits(name: str, data_dir: Path | None) -> tuple[Path, Splits]:
    """List a data set of files as it is, and say where it comes from."""
    if name.startswith(FOLDER):
        path = path_of(name, FOLDER, data_dir)
        found = folder_layouts.folder(path) if path.is_dir() else None
        if found is None:
            hint = without_split(path) if path.is_dir() else "there is no such folder"
            raise FileNotFoundError(
                f"data set {name!r}: {path} has neither train/ nor train.txt; "
                f"{hint or 'docs/data.md shows both forms'}"
            )
        return path, found
    found = None if data_dir is None else FILES[name](data_dir)
    if found is None:
        raise missing(name, data_dir)
    return found.root, found


def usual_image_size(name: str, data_dir: str | Path | None) -> int | None:
    """Return the height and width to train at: the files' own where they are smaller than 224.

    Args:
        name: of a data set; those that have a name have one size, and get None.
        data_dir: where it is, as `entprop_fast.data.load` takes it.

    Returns:
        The median of the shorter sides, in steps of 4 pixels, and at most 224; None where no file
        can be read: `load` says why.
    """
    if not name.startswith(FOLDER):
        return None
    try:
        _, splits = locate_splits(name, None if data_dir is None else Path(data_dir))
    except (ValueError, OSError):
        return None
    sides = []
    listed = splits.train or splits.test
    for file, _ in listed[:: max(1, len(listed) // _HEADERS)]:
        try:
            sides.append(min(describe_image(splits.root / file).size))
        except Exception:  # Pillow raises whatever broken bytes lead it to; `load` names the file
            continue
    if not sides:
        return None
    side = statistics.median(sides)
    return IMAGE_SIZE if side >= _NEAR * IMAGE_SIZE else max(_STEP, round(side / _STEP) * _STEP)


def _fewer(name: str, splits: Splits, train_size: int, seed: int) -> Splits:
    labels = np.array([label for _, label in splits.train])
    kept = stratified_subset(name, labels, train_size, seed)
    if empty := empty_classes(labels[kept], splits.class_names):
        raise ValueError(f"data set {name!r}: train_size = {train_size} leaves {empty}")
    return replace(splits, train=[splits.train[row] for row in kept])


def _image_files(name: str, splits: Splits, image_size: int, say: Say | None) -> ImageFiles:
    test = _file_list(splits.root, splits.test)
    if bad := unreadable(test, say):
        raise ValueError(
            f"data set {name!r}: {summary('test', len(test), bad)}; every one counts in an "
            "accuracy, so mend them, or take them from the list"
        )
    return ImageFiles(
        name,
        _file_list(splits.root, splits.train),
        test,
        splits.class_names,
        image_size,
        official_corruptions=_OFFICIAL_CORRUPTIONS.get(name),
    )


def _without_unreadable(data: ImageFiles, say: Say | None) -> ImageFiles:
    skipped = unreadable(data.train, say)
    if not skipped:
        return data
    _tell(f"data set {data.name!r}: {summary('training', data.num_train, skipped)}; left out", say)
    kept = [row for row in range(data.num_train) if row not in skipped]
    if not kept:
        raise ValueError(f"data set {data.name!r}: no training image can be read")
    if empty := empty_classes(data.train.labels[kept].numpy(), data.class_names):
        raise ValueError(f"data set {data.name!r}, unreadable files left out: {empty}")
    return replace(data, train=data.train.kept(kept), skipped=tuple(skipped.values()))


def _file_list(root: Path, listed: Listed) -> FileList:
    return FileList(root, [file for file, _ in listed], [label for _, label in listed])


def _compare_counts(name: str, splits: Splits, say: Say | None) -> None:
    """Say so where a test set is not the one that published numbers are of."""
    official = SOURCES[name].counts if name in SOURCES else None
    if official is None:
        return
    found = (len(splits.train) or official[0], len(splits.test), len(splits.class_names))
    if found != official:
        _tell(
            f"data set {name!r} in {splits.root} has {found[0]:,} training and {found[1]:,} test "
            f"images of {found[2]:,} classes, the official one {official[0]:,}, {official[1]:,} "
            f"and {official[2]:,}: its scores do not stand beside published ones",
            say,
        )


def _tell(message: str, say: Say | None) -> None:
    if say is not None:
        say(message)
    else:
        warnings.warn(message, stacklevel=3)
