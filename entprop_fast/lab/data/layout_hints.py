"""Say what a folder holds instead of a data set's layout, and what to do about it."""

from __future__ import annotations

from pathlib import Path

from entprop_fast.lab.data.stray_files import LeftOut, class_folders_in, is_image

_SHOWN = 4  # names
_TRAIN = ("training", "trainset", "train_images")
_TEST = ("valid", "validation", "testing", "testset", "dev", "eval")
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")


def without_split(path: Path) -> str:
    """Say what to do with a folder without ``train/`` and ``train.txt``; empty: no idea."""
    if renamed := renames(path):
        return renamed
    folders = class_folders_in(path, LeftOut(), path.name)
    for name in folders:
        if any((path / name / one).exists() for one in ("train", "train.txt")):
            return f"{name}/ in it has: folder:{path / name}"
    filled = [name for name in folders if _has_image(path / name)]
    if filled:
        return (
            f"its class folders ({_some(filled)}) are not split: put a share of each class's "
            "images into test/<class>/ and the rest into train/<class>/, or list them in train.txt "
            "and test.txt"
        )
    if _has_image(path):
        return "images lie in it without a class: sort them into train/<class>/ and test/<class>/"
    if archives := [one.name for one in path.iterdir() if one.suffix.lower() in _ARCHIVES]:
        return f"unpack {_some(sorted(archives))}"
    return ""


def renames(path: Path) -> str:
    """Say which folders are called otherwise than ``train`` and ``test``; empty: none."""
    folders = class_folders_in(path, LeftOut(), path.name)
    renamed = [
        f"{name}/ to {usual}/"
        for usual, others in (("train", _TRAIN), ("test", _TEST))
        for name in folders
        if name != usual and name.casefold() in (usual, *others)
    ]
    return f"rename {', '.join(renamed)}" if renamed else ""


def without_test(path: Path) -> str:
    """Say what to do with a folder that has ``train/`` and neither ``test/`` nor ``val/``."""
    names = class_folders_in(path, LeftOut(), path.name)
    near = [name for name in names if name.casefold() in ("test", "val", *_TEST)]
    if near:
        return f"rename {near[0]}/ to test/"
    return "move a share of each class's images from train/<class>/ to test/<class>/"


def without_classes(folder: Path) -> str:
    """Say why a split's folder has no class folders."""
    if _has_image(folder):
        return (
            "images lie in it without a class: sort them into a folder for each class, or list "
            "them with their labels in train.txt and test.txt"
        )
    return "it is empty" if not any(folder.iterdir()) else "it holds no image"


def _has_image(folder: Path) -> bool:
    return any(is_image(one.name) and one.is_file() for one in folder.iterdir())


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
