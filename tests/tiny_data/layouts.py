"""Folders of images as the official archives unpack, with images of every size and mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

CLASSES = 3
TRAIN, TEST = 4, 2  # images a class

MODES = ("RGB", "L", "CMYK", "RGB")  # of the first images, over and over
WNIDS = ("n01440764", "n01443537", "n01484850")


def picture(number: int, mode: str = "RGB") -> Image.Image:
    """A picture of its own size, smooth enough for JPEG, that no other number has."""
    generator = np.random.default_rng(number)
    small = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    width, height = 24 + 5 * (number % 7), 20 + 7 * (number % 5)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def save(path: Path, number: int) -> Path:
    """Write picture `number`, in its mode, as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = MODES[number % len(MODES)]
    picture(number, "P" if path.suffix == ".png" else mode).save(path)
    return path


def _numbered(each: int, first: int) -> list[tuple[int, int]]:
    """(picture, label) of a split, classes in turn."""
    return [(first + i, i % CLASSES) for i in range(each * CLASSES)]


SPLITS = (_numbered(TRAIN, 0), _numbered(TEST, 100))


def cub(data_dir: Path) -> Path:
    """CUB_200_2011/ with its four lists; both splits share the class folders."""
    root = data_dir / "CUB_200_2011"
    names = [f"{label + 1:03}.Black_footed_{label}" for label in range(CLASSES)]
    lists: dict[str, list[str]] = {name: [] for name in ("images", "labels", "split")}
    number = 0
    for training, split in zip((1, 0), SPLITS, strict=True):
        for image, label in split:
            number += 1
            file = f"{names[label]}/Bird_{image:04}.jpg"
            save(root / "images" / file, image)
            lists["images"].append(f"{number} {file}")
            lists["labels"].append(f"{number} {label + 1}")
            lists["split"].append(f"{number} {training}")
    _write(root / "images.txt", lists["images"])
    _write(root / "image_class_labels.txt", lists["labels"])
    _write(root / "train_test_split.txt", lists["split"])
    _write(root / "classes.txt", [f"{i + 1} {name}" for i, name in enumerate(names)])
    return root


def pets(data_dir: Path) -> Path:
    """images/ and annotations/; breeds with underscores, one image beside the lists."""
    names = ["Abyssinian", "american_bulldog", "yorkshire_terrier"]
    lines: list[list[str]] = []
    for split in SPLITS:
        lines.append([])
        for image, label in split:
            save(data_dir / "images" / f"{names[label]}_{image}.jpg", image)
            lines[-1].append(f"{names[label]}_{image} {label + 1} {1 + label // 2} 1")
    save(data_dir / "images" / "unlisted_1.jpg", 1)
    _write(data_dir / "annotations" / "trainval.txt", lines[0])
    _write(data_dir / "annotations" / "test.txt", lines[1])
    _write(data_dir / "annotations" / "list.txt", ["#Image CLASS-ID", *lines[0], *lines[1]])
    return data_dir


def cars(data_dir: Path) -> Path:
    """cars_train/, cars_test/, devkit/ and the labelled test list."""
    kind = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    for name, folder, split in (
        ("devkit/cars_train_annos", "cars_train", SPLITS[0]),
        ("cars_test_annos_withlabels", "cars_test", SPLITS[1]),
    ):
        rows = []
        for image, label in split:
            save(data_dir / folder / f"{image:05}.jpg", image)
            rows.append((1, label + 1, f"{image:05}.jpg"))
        _matlab(data_dir / f"{name}.mat", annotations=np.array([rows], dtype=object), kind=kind)
    names = np.array(["AM General Hummer SUV 2000", "Acura RL 2012", "BMW M3"], dtype=object)
    scipy.io.savemat(data_dir / "devkit" / "cars_meta.mat", {"class_names": names[None]})
    return data_dir


def imagenet(data_dir: Path) -> Path:
    """train/<wnid>/ and val/<wnid>/."""
    for folder, split in zip(("train", "val"), SPLITS, strict=True):
        for image, label in split:
            save(data_dir / folder / WNIDS[label] / f"{WNIDS[label]}_{image}.JPEG", image)
    return data_dir


def imagenet_flat(data_dir: Path) -> Path:
    """train/<wnid>/, val/ as its archive unpacks, and the development kit, which numbers anew."""
    imagenet(data_dir)
    of_number = (WNIDS[2], WNIDS[0], WNIDS[1])  # 1, 2, 3
    numbers = []
    for place, (image, label) in enumerate(SPLITS[1]):
        old = data_dir / "val" / WNIDS[label] / f"{WNIDS[label]}_{image}.JPEG"
        old.rename(data_dir / "val" / f"ILSVRC2012_val_{place + 1:08}.JPEG")
        numbers.append(str(of_number.index(WNIDS[label]) + 1))
    for wnid in WNIDS:
        (data_dir / "val" / wnid).rmdir()
    kit = data_dir / "ILSVRC2012_devkit_t12" / "data"
    _write(kit / "ILSVRC2012_validation_ground_truth.txt", numbers)
    rows = [(i + 1, wnid, f"kind {i}", 0) for i, wnid in enumerate(of_number)]
    rows.append((4, "n00001740", "entity", 3))  # an inner node, as the kit has some
    kind = [(name, "O") for name in ("ILSVRC2012_ID", "WNID", "words", "num_children")]
    _matlab(kit / "meta.mat", synsets=np.array([rows], dtype=object), kind=kind)
    return data_dir


def folder(path: Path) -> Path:
    """train/ and test/ with a folder a class, PNG among JPEG."""
    for name, split in zip(("train", "test"), SPLITS, strict=True):
        for image, label in split:
            suffix = "png" if image % 3 == 0 else "jpg"
            save(path / name / f"class {label}" / f"{image}.{suffix}", image)
    return path


def listed(path: Path) -> Path:
    """train.txt and val.txt over one folder of images, one of which has spaces in its name."""
    for name, split in zip(("train", "val"), SPLITS, strict=True):
        lines = []
        for image, label in split:
            file = f"pictures/my image {image}.jpg"
            save(path / file, image)
            lines.append(f"{file} {label}")
        _write(path / f"{name}.txt", lines)
    return path


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "cub": cub,
    "pets": pets,
    "cars": cars,
    "imagenet": imagenet,
}


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _matlab(path: Path, *, kind: Any, **variable: Any) -> None:
    """A struct array ``[1, N]`` with those fields, of the one variable given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ((name, rows),) = variable.items()
    struct = np.empty((1, rows.shape[1]), dtype=kind)
    for i, row in enumerate(rows[0]):
        struct[0, i] = tuple(row)
    scipy.io.savemat(path, {name: struct})
