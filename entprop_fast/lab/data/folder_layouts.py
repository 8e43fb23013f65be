"""List ImageNet, or any folder of images: a folder a class, or official list files."""

from __future__ import annotations

import difflib
from collections import Counter
from pathlib import Path, PurePosixPath

from entprop_fast.lab.data.layout_hints import without_classes, without_test
from entprop_fast.lab.data.lists import (
    Listed,
    Splits,
    fields,
    lines,
    number,
    read_matlab,
    split_line,
)
from entprop_fast.lab.data.stray_files import LeftOut, class_folders_in, image_paths, is_image

DEVKIT = "ILSVRC2012_devkit_t12"

_TINY_LIST = "val_annotations.txt"


def imagenet(data_dir: Path) -> Splits | None:
    """List ``train/<wnid>/*`` and ``val/<wnid>/*``, or ``val/*`` as its archive unpacks.

    The latter takes its labels from the development kit, ``ILSVRC2012_devkit_t12/``. Labels number
    the wnids in their alphabetical order, as torchvision's and timm's weights expect. Without
    ``train/``, which an evaluation does not need, the classes are those of ``val/``.
    """
    if not (data_dir / "val").is_dir():
        return None
    if class_folders_in(data_dir / "val", LeftOut(), "val"):
        return _class_folder_splits(data_dir, "val")
    if not (data_dir / "train").is_dir():
        return None
    left_out = LeftOut()
    classes, train = _class_folders(data_dir, "train", left_out)
    test = _flat_validation(data_dir, classes, left_out)
    return Splits(data_dir, train, test, classes, left_out.lines())


def folder(path: Path) -> Splits | None:
    """List ``train`` and ``test`` (else ``val``), each a ``.txt`` list or folder of class folders.

    A line of a list is ``file label``, the file within ``path`` and the label a number from 0;
    ``classes.txt`` names the classes, a line each, where there is one. A line that begins with #
    is a comment, unless a file is called so. Tiny ImageNet is read as it unpacks.
    """
    if (path / "train.txt").is_file():
        test = next((name for name in ("test", "val") if (path / f"{name}.txt").is_file()), None)
        if test is None:
            raise ValueError(f"{path} has train.txt but neither test.txt nor val.txt")
        left_out = LeftOut()
        train, tested = (_list(path / f"{name}.txt", left_out) for name in ("train", test))
        return Splits(path, train, tested, _class_names(path, train), left_out.lines())
    if (path / "train").is_dir() and is_tiny_imagenet(path):
        return _tiny_imagenet(path)
    test = next((name for name in ("test", "val") if (path / name).is_dir()), None)
    if (
        test == "test"
        and (path / "val").is_dir()
        and not class_folders_in(path / test, LeftOut(), test)
    ):
        raise ValueError(f"{path / test} has no class folders: rename it, so that val/ counts")
    if test is not None:
        return _class_folder_splits(path, test)
    if (path / "train").is_dir():
        raise ValueError(f"{path} has train/ but neither test/ nor val/: {without_test(path)}")
    return None


def _tiny_imagenet(path: Path) -> Splits:
    left_out = LeftOut()
    classes, train = _class_folders(path, "train", left_out)
    test = _tiny_validation(path, classes, left_out)
    return Splits(path, train, test, classes, left_out.lines())


def is_tiny_imagenet(path: Path) -> bool:
    """Return whether ``val/`` is as Tiny ImageNet unpacks: images in one folder, labels in a list.

    One that was sorted into class folders is read like any other.
    """
    val = path / "val"
    return (val / _TINY_LIST).is_file() and class_folders_in(val, LeftOut(), "val") == ["images"]


def _tiny_validation(path: Path, classes: tuple[str, ...], left_out: LeftOut) -> Listed:
    """List ``val/images/*``, labelled by a list: file, wnid and four numbers of a box.

    Nobody publishes the labels of ``test/``, so that it is left out.
    """
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    listed: Listed = []
    for file, rest in fields(path / "val" / _TINY_LIST, 2, last=True):
        wnid = rest.split()[0]
        if wnid not in label_of:
            raise ValueError(
                f"{path / 'val' / _TINY_LIST}: {file} is of class {wnid}, which train/ lacks"
            )
        listed.append((f"val/images/{file}", label_of[wnid]))
    if (path / "test").is_dir():
        left_out.add("folder without labels", "test")
    return listed


def _class_folder_splits(root: Path, test: str) -> Splits:
    """List ``train/`` and that folder; without the former, no training images."""
    left_out = LeftOut()
    names, tested = _class_folders(root, test, left_out)
    if not (root / "train").is_dir():
        return Splits(root, [], tested, names, left_out.lines())
    classes, train = _class_folders(root, "train", left_out)
    tested = _renumbered(root / test, tested, names, classes)
    return Splits(root, train, tested, classes, left_out.lines())


def _class_folders(root: Path, split: str, left_out: LeftOut) -> tuple[tuple[str, ...], Listed]:
    """List as torchvision does, hidden and other programs' folders apart; none may be empty."""
    names = class_folders_in(root / split, left_out, split)
    if not names:
        raise ValueError(f"{root / split} has no class folders: {without_classes(root / split)}")
    listed: Listed = []
    empty = []
    for label, name in enumerate(names):
        of_class = LeftOut()
        shown = f"{split}/{name}"
        found = image_paths(root / split / name, of_class, shown)
        if not found:
            empty.append(f"{shown} (it holds {'; '.join(of_class.lines()) or 'nothing'})")
        left_out.extend(of_class)
        listed += [(f"{shown}/{file}", label) for file in found]
    if empty:
        raise ValueError(
            f"{root}: class folders without an image: {', '.join(empty[:10])}"
            f"{', ...' if len(empty) > 10 else ''}: remove or fill them"
        )
    return tuple(names), listed


def _renumbered(
    path: Path, listed: Listed, names: tuple[str, ...], classes: tuple[str, ...]
) -> Listed:
    """Map labels to the training set's classes: a test folder may have fewer."""
    number_of = {name: label for label, name in enumerate(classes)}
    if strange := [name for name in names if name not in number_of]:
        near = difflib.get_close_matches(strange[0], classes, n=1)
        hint = f"; nearest: {near[0]!r}" if near else ""
        raise ValueError(f"{path} has class {strange[0]!r}, which no training folder has{hint}")
    return [(file, number_of[names[label]]) for file, label in listed]


def _flat_validation(data_dir: Path, classes: tuple[str, ...], left_out: LeftOut) -> Listed:
    """List images in the order of their names, classes as the development kit numbers them."""
    kit = data_dir / DEVKIT / "data"
    if not kit.is_dir():
        raise ValueError(
            f"{data_dir / 'val'} has no class folders: unpack {DEVKIT}.tar.gz in {data_dir}, which "
            "holds the labels, or sort the images into val/<wnid>/"
        )
    files = image_paths(data_dir / "val", left_out, "val")
    path = kit / "ILSVRC2012_validation_ground_truth.txt"
    numbers = [number(path, text) for (text,) in fields(path, 1)]
    if len(files) != len(numbers):
        raise ValueError(f"{path} has {len(numbers)} labels for {len(files)} images in val/")
    wnid_of = _devkit_wnids(kit / "meta.mat")
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    listed: Listed = []
    for file, synset in zip(files, numbers, strict=True):
        wnid = wnid_of.get(synset)
        if wnid not in label_of:
            raise ValueError(f"{path}: {file} is of class {synset} ({wnid}), which train/ lacks")
        listed.append((f"val/{file}", label_of[wnid]))
    return listed


def _devkit_wnids(path: Path) -> dict[int, str]:
    """Map ILSVRC's number of a class to its wnid, out of the development kit's ``synsets``."""
    return {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in read_matlab(path, "synsets")}


def _list(path: Path, left_out: LeftOut) -> Listed:
    listed: Listed = []
    for row, line in lines(path):
        comment = line.startswith("#")
        words = line.rsplit(None, 1)
        if comment and not (len(words) == 2 and (path.parent / words[0]).is_file()):
            if len(words) == 2 and is_image(words[0]):
                left_out.add(f"commented lines of {path.name}", line)
            continue
        file, label = split_line(path, row, line, 2)
        # "./a" and "a//b" are "a" and "a/b"; what is absolute or has ".." stays, and is refused.
        listed.append((str(PurePosixPath(file)), number(path, label)))
    return listed


def _class_names(path: Path, train: Listed) -> tuple[str, ...]:
    """Read one name a line, # and all: one taken for a comment would move all that follow."""
    file = path / "classes.txt"
    if file.is_file():
        names = tuple(line for _, line in lines(file))
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"{file} names {twice[0]!r} twice")
        return names
    return tuple(str(label) for label in range(max((label for _, label in train), default=-1) + 1))
