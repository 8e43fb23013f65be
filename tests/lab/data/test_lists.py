"""Official lists with something wrong in them: one error that names the list and the line."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from entprop_fast.lab.data.datasets import find_splits
from tests.tiny_data import layouts

CUB = "CUB_200_2011"

# data set, file, what is replaced by what, and the error
WRONG = {
    "a label of no class": ("cub", f"{CUB}/image_class_labels.txt", "1 1\n", "1 9\n", "label 8"),
    "no number": ("cub", f"{CUB}/image_class_labels.txt", "2 2\n", "2 two\n", "'two' is no whole"),
    "a field too few": ("cub", f"{CUB}/images.txt", "3 003", "3003", r"images.txt, line 3: "),
    "an image of one list": ("cub", f"{CUB}/train_test_split.txt", "1 1\n", "99 1\n", "image 99"),
    "no such split": ("cub", f"{CUB}/train_test_split.txt", "1 1\n", "1 2\n", r"image 1 \(2\)"),
    "outside": ("cub", f"{CUB}/images.txt", "1 001", "1 ../../001", "lies outside of"),
    "twice": ("pets", "annotations/test.txt", "Abyssinian_100", "Abyssinian_0", "_0.jpg twice"),
    "two breeds": ("pets", "annotations/test.txt", "Abyssinian_100 1", "Abyssinian_100 2", "label"),
    "no training image": ("pets", "annotations/trainval.txt", None, "\n", "no training images"),
    "binary": ("pets", "annotations/test.txt", None, "\udcff\udcfe", "is no list of images"),
    "no matlab": ("cars", "devkit/cars_meta.mat", None, "MATLAB 5.0", "cannot be read as MATLAB"),
    "absolute": ("folder:lists", "lists/train.txt", "pictures/", "/pictures/", "lies outside of"),
    "negative": ("folder:lists", "lists/train.txt", ".jpg 0", ".jpg -1", "has label -1"),
    "unknown number": ("folder:lists", "lists/val.txt", ".jpg 0", ".jpg 3", "has label 3"),
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout in one folder."""
    data_dir = tmp_path_factory.mktemp("sets")
    layouts.cub(data_dir)
    layouts.pets(data_dir)
    layouts.cars(data_dir)
    layouts.listed(data_dir / "lists")
    layouts.folder(data_dir / "classes")
    layouts.imagenet_flat(data_dir / "flat")
    return data_dir


@pytest.mark.parametrize("case", WRONG)
def test_refused(case: str, sets: Path) -> None:
    name, file, old, new, message = WRONG[case]
    path = sets / file
    content = path.read_bytes()
    if old is None:
        changed = new.encode("utf-8", "surrogateescape")
    else:
        assert old.encode() in content
        changed = content.replace(old.encode(), new.encode(), 1)
    try:
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=message):
            find_splits(name, sets)
    finally:
        path.write_bytes(content)
    find_splits(name, sets)


MISSING = {
    "cub": (f"{CUB}/classes.txt", "lacks classes.txt"),
    "pets": ("annotations/test.txt", r"lacks test\.txt"),
    "cars": ("cars_test_annos_withlabels.mat", "lacks cars_test_annos_withlabels.mat; the devkit"),
    "folder:lists": ("lists/val.txt", "neither test.txt nor val.txt"),
    "folder:classes": ("classes/test", "neither test/ nor val/"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_list_is_named(name: str, sets: Path) -> None:
    file, message = MISSING[name]
    aside = sets / "aside"
    (sets / file).rename(aside)
    try:
        with pytest.raises(ValueError, match=message):
            find_splits(name, sets)
    finally:
        aside.rename(sets / file)


def test_a_test_class_that_training_lacks(sets: Path) -> None:
    strange = sets / "classes" / "test" / "cat"
    layouts.save(strange / "1.jpg", 1)
    try:
        with pytest.raises(ValueError, match="has class 'cat', which no training folder has"):
            find_splits("folder:classes", sets)
    finally:
        (strange / "1.jpg").unlink()
        strange.rmdir()


def test_a_folder_without_an_image_is_no_class(sets: Path) -> None:
    stray = sets / "classes" / "train" / "cat"
    stray.mkdir()
    (stray / "1.heic").touch()
    try:
        with pytest.raises(ValueError, match=r"without an image: train/cat .*1 x \.heic"):
            find_splits("folder:classes", sets)
    finally:
        (stray / "1.heic").unlink()
        stray.rmdir()


def test_lists_go_before_folders(tmp_path: Path) -> None:
    path = layouts.folder(layouts.listed(tmp_path))
    assert all("my image" in file for file, _ in find_splits(f"folder:{path}", None).train)


def test_a_test_folder_may_have_fewer_classes(tmp_path: Path) -> None:
    path = layouts.folder(tmp_path)
    for file in (path / "test" / "class 0").iterdir():
        file.unlink()
    (path / "test" / "class 0").rmdir()
    assert {label for _, label in find_splits(f"folder:{path}", None).test} == {1, 2}


def test_a_flat_validation_set_needs_its_labels(sets: Path) -> None:
    flat = sets / "flat"
    layouts.save(flat / "val" / "another.JPEG", 1)
    try:
        with pytest.raises(ValueError, match=r"has 6 labels for 7 images in val/"):
            find_splits("imagenet", flat)
    finally:
        (flat / "val" / "another.JPEG").unlink()
    kit = flat / "ILSVRC2012_devkit_t12"
    kit.rename(flat / "aside")
    try:
        with pytest.raises(ValueError, match="unpack ILSVRC2012_devkit_t12"):
            find_splits("imagenet", flat)
    finally:
        (flat / "aside").rename(kit)


def test_folder_paths(sets: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no folder"):
        find_splits("folder:", sets)
    with pytest.raises(ValueError, match="says where it is and takes no --data-dir"):
        find_splits(f"folder:{sets}/lists", sets)
    with pytest.raises(FileNotFoundError, match=r"neither train/ nor train\.txt"):
        find_splits(f"folder:{tmp_path}", None)


def test_a_byte_order_mark_is_no_part_of_the_first_name(sets: Path) -> None:
    before = find_splits("folder:lists", sets)
    lists = [sets / "lists" / name for name in ("train.txt", "val.txt", "classes.txt")]
    contents = {path: path.read_bytes() for path in lists if path.exists()}
    try:
        for path, content in contents.items():
            path.write_bytes(codecs.BOM_UTF8 + content)
        assert find_splits("folder:lists", sets) == before
    finally:
        for path, content in contents.items():
            path.write_bytes(content)
