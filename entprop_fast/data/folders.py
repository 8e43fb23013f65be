"""ImageNet, and any folder of images: a folder a class, or official list files."""

from __future__ import annotations

from pathlib import Path

from entprop_fast.data.lists import Listed, Splits, fields, number
from entprop_fast.data.matlab import read_matlab
from entprop_fast.optional import import_torchvision

DEVKIT = "ILSVRC2012_devkit_t12"


def imagenet(data_dir: Path) -> Splits | None:
    """``train/<wnid>/*`` and ``val/<wnid>/*``, or ``val/*`` as its archive unpacks.

    The latter takes its labels from the development kit, ``ILSVRC2012_devkit_t12/``. Labels number
    the wnids in their alphabetical order, as torchvision's and timm's weights expect.
    """
    if not (data_dir / "train").is_dir() or not (data_dir / "val").is_dir():
        return None
    classes, train = _class_folders(data_dir, "train")
    if any(entry.is_dir() for entry in (data_dir / "val").iterdir()):
        test_classes, test = _class_folders(data_dir, "val")
        test = _renumbered(data_dir / "val", test, test_classes, classes)
    else:
        test = _flat_validation(data_dir, classes)
    return Splits(data_dir, train, test, classes)


def folder(path: Path) -> Splits | None:
    """``train`` and ``test`` (else ``val``), each a folder of class folders or a ``.txt`` list.

    A line of a list is ``file label``, the file within ``path`` and the label a number from 0;
    ``classes.txt`` names the classes, a line each, where there is one.
    """
    if (path / "train").is_dir():
        test = next((name for name in ("test", "val") if (path / name).is_dir()), None)
        if test is None:
            raise ValueError(f"{path} has train/ but neither test/ nor val/")
        classes, train = _class_folders(path, "train")
        test_classes, tested = _class_folders(path, test)
        return Splits(path, train, _renumbered(path / test, tested, test_classes, classes), classes)
    if (path / "train.txt").is_file():
        test = next((name for name in ("test", "val") if (path / f"{name}.txt").is_file()), None)
        if test is None:
            raise ValueError(f"{path} has train.txt but neither test.txt nor val.txt")
        train, tested = (_list(path / f"{name}.txt") for name in ("train", test))
        return Splits(path, train, tested, _class_names(path, train))
    return None


def _class_folders(root: Path, split: str) -> tuple[tuple[str, ...], Listed]:
    """torchvision's reading: classes are the sorted names of the folders that hold images."""
    datasets = import_torchvision("datasets", purpose="listing folders of images")
    try:
        found = datasets.ImageFolder(root / split, allow_empty=True)
    except FileNotFoundError as error:
        raise ValueError(f"{root / split}: {error}") from error
    listed = [(str(Path(file).relative_to(root)), int(label)) for file, label in found.samples]
    return tuple(found.classes), listed


def _renumbered(
    path: Path, listed: Listed, names: tuple[str, ...], classes: tuple[str, ...]
) -> Listed:
    """Labels by the training set's classes: a test folder may have fewer."""
    number_of = {name: label for label, name in enumerate(classes)}
    if strange := [name for name in names if name not in number_of]:
        raise ValueError(f"{path} has class {strange[0]!r}, which no training folder has")
    return [(file, number_of[names[label]]) for file, label in listed]


def _flat_validation(data_dir: Path, classes: tuple[str, ...]) -> Listed:
    """Images in the order of their names, classes as the development kit numbers them."""
    kit = data_dir / DEVKIT / "data"
    if not kit.is_dir():
        raise ValueError(
            f"{data_dir / 'val'} has no class folders: unpack {DEVKIT}.tar.gz in {data_dir}, which "
            "holds the labels, or sort the images into val/<wnid>/"
        )
    files = sorted(entry.name for entry in (data_dir / "val").iterdir() if entry.is_file())
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
    """ILSVRC's number of a class to its wnid, out of the development kit's ``synsets``."""
    return {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in read_matlab(path, "synsets")}


def _list(path: Path) -> Listed:
    return [(file, number(path, label)) for file, label in fields(path, 2)]


def _class_names(path: Path, train: Listed) -> tuple[str, ...]:
    names = path / "classes.txt"
    if names.is_file():
        return tuple(name for (name,) in fields(names, 1))
    return tuple(str(label) for label in range(max((label for _, label in train), default=-1) + 1))
