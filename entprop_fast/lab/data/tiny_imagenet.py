"""Tiny ImageNet as its archive unpacks: validation images in one folder, labels in a list."""

from __future__ import annotations

from pathlib import Path

from entprop_fast.lab.data.lists import Listed, fields
from entprop_fast.lab.data.stray_files import LeftOut, class_folders_in

_LIST = "val_annotations.txt"


def is_at(path: Path) -> bool:
    """Whether ``val/`` is as it unpacks; one sorted into class folders is read like any other."""
    val = path / "val"
    return (val / _LIST).is_file() and class_folders_in(val, LeftOut(), "val") == ["images"]


def validation(path: Path, classes: tuple[str, ...], left_out: LeftOut) -> Listed:
    """``val/images/*``, labelled by the list: file, wnid and four numbers of a box.

    Args:
        path: of the data set.
        classes: the wnids of ``train/``.
        left_out: is told of ``test/``, whose labels nobody publishes.

    Raises:
        ValueError: a class that ``train/`` lacks, or a line without a class.
    """
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    listed: Listed = []
    for file, rest in fields(path / "val" / _LIST, 2, last=True):
        wnid = rest.split()[0]
        if wnid not in label_of:
            raise ValueError(
                f"{path / 'val' / _LIST}: {file} is of class {wnid}, which train/ lacks"
            )
        listed.append((f"val/images/{file}", label_of[wnid]))
    if (path / "test").is_dir():
        left_out.add("folder without labels", "test")
    return listed
