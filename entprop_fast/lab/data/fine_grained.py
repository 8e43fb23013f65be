"""List the fine-grained sets: CUB-200-2011, Oxford-IIIT Pet and Stanford Cars."""

from __future__ import annotations

from pathlib import Path

from entprop_fast.lab.data.lists import (
    Listed,
    Splits,
    fields,
    first_folder,
    number,
    read_matlab,
)


def cub(data_dir: Path) -> Splits | None:
    """List ``CUB_200_2011/`` as its archive unpacks; None where there is none.

    Four lists, joined by image number: names, classes, split (1: training) and class names.
    """
    root = first_folder(data_dir, ("CUB_200_2011", "."), "train_test_split.txt")
    if root is None:
        return None
    files = {image: file for image, file in fields(root / "images.txt", 2, last=True)}
    path = root / "image_class_labels.txt"
    labels = {image: number(path, label) - 1 for image, label in fields(path, 2)}
    classes = [name for _, name in fields(root / "classes.txt", 2, last=True)]
    split: dict[str, Listed] = {"1": [], "0": []}
    path = root / "train_test_split.txt"
    for image, training in fields(path, 2):
        if image not in files or image not in labels or training not in split:
            raise ValueError(f"{path}: image {image} ({training}) is in no other list, or no split")
        split[training].append((f"images/{files[image]}", labels[image]))
    return Splits(root, split["1"], split["0"], tuple(classes))


def pets(data_dir: Path) -> Splits | None:
    """List ``images/`` and ``annotations/`` side by side, or in torchvision's ``oxford-iiit-pet/``.

    A class is called as its images are: ``Abyssinian_100`` is an Abyssinian.
    """
    root = first_folder(data_dir, ("oxford-iiit-pet", "."), "annotations/trainval.txt")
    if root is None:
        return None
    names: dict[int, str] = {}
    splits: list[Listed] = []
    for name in ("trainval.txt", "test.txt"):
        path = root / "annotations" / name
        listed: Listed = []
        for image, label, _, _ in fields(path, 4):
            breed, _, _ = image.rpartition("_")
            found = names.setdefault(number(path, label) - 1, breed)
            if found != breed:
                raise ValueError(f"{path}: {image} has label {label}, which is {found}")
            listed.append((f"images/{image}.jpg", int(label) - 1))
        splits.append(listed)
    classes = tuple(names.get(label, "") for label in range(max(names, default=-1) + 1))
    train, test = splits
    return Splits(root, train, test, classes)


def cars(data_dir: Path) -> Splits | None:
    """List the archives' folders side by side, or in torchvision's ``stanford_cars/``."""
    root = first_folder(data_dir, ("stanford_cars", "."), "devkit/cars_train_annos.mat")
    if root is None:
        return None
    labelled = first_folder(root, (".", "devkit"), "cars_test_annos_withlabels.mat")
    if labelled is None:
        raise ValueError(
            f"{root} lacks cars_test_annos_withlabels.mat; the devkit's own test list has no labels"
        )
    train = _cars_list(root / "devkit" / "cars_train_annos.mat", "cars_train")
    test = _cars_list(labelled / "cars_test_annos_withlabels.mat", "cars_test")
    names = read_matlab(root / "devkit" / "cars_meta.mat", "class_names")
    return Splits(root, train, test, tuple(str(name) for name in names))


def _cars_list(path: Path, folder: str) -> Listed:
    try:
        return [
            (f"{folder}/{one['fname']}", int(one["class"]) - 1)
            for one in read_matlab(path, "annotations")
        ]
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{path}: its annotations lack fname or class: {error}") from error
