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
    the wnids in their alphabetical order, as torchvision's and timm's weights expect. Without
    ``train/``, which an evaluation does not need, the classes are those of ``val/``.
    """
    if not (data_dir / "val").is_dir():
        return None
    if any(entry.is_dir() for entry in (data_dir / "val").iterdir()):
        return _class_folder_splits(data_dir, "val")
    if not (data_dir / "train").is_dir():
        return None
    classes, train = _class_folders(data_dir, "train")
    return Splits(data_dir, train, _flat_validation(data_dir, classes), classes)


def folder(path: Path) -> Splits | None:
    """``train`` and ``test`` (else ``val``), each a ``.txt`` list or a folder of class folders.

    A line of a list is ``file label``, the file within ``path`` and the label a number from 0;
    ``classes.txt`` names the classes, a line each, where there is one.
    """
    if (path / "train.txt").is_file():
        test = next((name for name in ("test", "val") if (path / f"{name}.txt").is_file()), None)
        if test is None:
            raise ValueError(f"{path} has train.txt but neither test.txt nor val.txt")
        train, tested = (_list(path / f"{name}.txt") for name in ("train", test))
        return Splits(path, train, tested, _class_names(path, train))
    test = next((name for name in ("test", "val") if (path / name).is_dir()), None)
    if test is not None:
        return _class_folder_splits(path, test)
    if (path / "train").is_dir():
        raise ValueError(f"{path} has train/ but neither test/ nor val/")
    return None


def _class_folder_splits(root: Path, test: str) -> Splits:
    """``train/`` and that folder; without the former, no training images."""
    names, tested = _class_folders(root, test)
    if not (root / "train").is_dir():
        return Splits(root, [], tested, names)
    classes, train = _class_folders(root, "train")
    return Splits(root, train, _renumbered(root / test, tested, names, classes), classes)


def _class_folders(root: Path, split: str) -> tuple[tuple[str, ...], Listed]:
    """torchvision's reading: the sorted names of the folders, of which none may be empty."""
    datasets = import_torchvision("datasets", purpose="listing folders of images")
    try:
        found = datasets.ImageFolder(root / split)
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
    highest = max((label for _, label in train), default=-1)
    if highest >= len(train) > 0:  # not even a name each is made for 10**12 classes
        raise ValueError(
            f"{path / 'train.txt'} has label {highest} and {len(train)} images: labels are numbers "
            "from 0 on, each with images"
        )
    return tuple(str(label) for label in range(highest + 1))
