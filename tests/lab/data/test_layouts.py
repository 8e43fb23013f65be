"""Folders that are laid out in another way: read, or refused with what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from entprop_fast.lab.cli.data import main
from entprop_fast.lab.data.datasets import find_splits
from tests.tiny_data import layouts
from tests.tiny_data.layouts import CLASSES, SPLITS, TEST, TRAIN, WNIDS

Capture = pytest.CaptureFixture[str]


def tiny_imagenet(path: Path) -> Path:
    """As tiny-imagenet-200.zip unpacks."""
    for image, label in SPLITS[0]:
        folder = path / "train" / WNIDS[label]
        layouts.save(folder / "images" / f"{WNIDS[label]}_{image}.JPEG", image)
        (folder / f"{WNIDS[label]}_boxes.txt").write_text("")
    lines = []
    for image, label in SPLITS[1]:
        layouts.save(path / "val" / "images" / f"val_{image}.JPEG", image)
        lines.append(f"val_{image}.JPEG\t{WNIDS[label]}\t0\t32\t44\t62\n")
    (path / "val" / "val_annotations.txt").write_text("".join(lines))
    layouts.save(path / "test" / "images" / "test_0.JPEG", 300)
    return path


@pytest.mark.parametrize("spelling", ["folder:{path}", "{path}"])
def test_tiny_imagenet_is_read_as_it_unpacks(
    spelling: str, tmp_path: Path, capsys: Capture
) -> None:
    """FOUND W7, issue 16.5."""
    path = tiny_imagenet(tmp_path)
    splits = find_splits(f"folder:{path}", None)
    assert (len(splits.train), len(splits.test)) == (CLASSES * TRAIN, CLASSES * TEST)
    assert splits.class_names == WNIDS
    truth = {f"val/images/val_{image}.JPEG": label for image, label in SPLITS[1]}
    assert dict(splits.test) == truth
    (note,) = splits.notes
    assert "3 x .txt" in note and "1 x folder without labels (test)" in note
    assert main(["check", spelling.format(path=path)]) == 0
    assert "folder without labels" in capsys.readouterr().out


def test_tiny_imagenet_sorted_by_hand_is_read_like_any_other(tmp_path: Path) -> None:
    path = tiny_imagenet(tmp_path)
    shutil.rmtree(path / "test")
    for image, label in SPLITS[1]:
        folder = path / "val" / WNIDS[label]
        folder.mkdir(exist_ok=True)
        (path / "val" / "images" / f"val_{image}.JPEG").rename(folder / f"val_{image}.JPEG")
    (path / "val" / "images").rmdir()
    splits = find_splits(f"folder:{path}", None)
    truth = {f"val/{WNIDS[label]}/val_{image}.JPEG": label for image, label in SPLITS[1]}
    assert dict(splits.test) == truth


def test_tiny_imagenet_with_a_class_that_training_lacks(tmp_path: Path) -> None:
    path = tiny_imagenet(tmp_path)
    shutil.rmtree(path / "train" / WNIDS[1])
    with pytest.raises(ValueError, match=f"of class {WNIDS[1]}, which train/ lacks"):
        find_splits(f"folder:{path}", None)


def without_train(path: Path) -> None:
    (path / "train").rename(path / "training")


def with_valid(path: Path) -> None:
    (path / "test").rename(path / "valid")


def with_capitals(path: Path) -> None:
    (path / "train").rename(path / "Train_")
    (path / "Train_").rename(path / "Train")
    (path / "test").rename(path / "Test")


def without_split(path: Path) -> None:
    for folder in (path / "train").iterdir():
        folder.rename(path / folder.name)
    shutil.rmtree(path / "train")
    shutil.rmtree(path / "test")


def without_test(path: Path) -> None:
    shutil.rmtree(path / "test")


def one_deeper(path: Path) -> None:
    (path / "birds").mkdir()
    for name in ("train", "test"):
        (path / name).rename(path / "birds" / name)


def without_classes(path: Path) -> None:
    shutil.rmtree(path / "train")
    layouts.save(path / "train" / "1.jpg", 1)


def only_images(path: Path) -> None:
    for name in ("train", "test"):
        shutil.rmtree(path / name)
    layouts.save(path / "1.jpg", 1)


def packed(path: Path) -> None:
    for name in ("train", "test"):
        shutil.rmtree(path / name)
    (path / "birds.zip").touch()


def nested(path: Path) -> None:
    for name in ("train", "test"):
        (path / name).rename(path / "aside")
        (path / name).mkdir()
        (path / "aside").rename(path / name / "images")


def one_class(path: Path) -> None:
    for name in ("train", "test"):
        for number in (1, 2):
            shutil.rmtree(path / name / f"class {number}")


def unlabelled_test(path: Path) -> None:
    (path / "test").rename(path / "val")
    layouts.save(path / "test" / "1.jpg", 1)


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "training/": (without_train, "rename training/ to train/"),
    "Train/ and Test/": (with_capitals, "rename Train/ to train/, Test/ to test/"),
    "valid/": (with_valid, "rename valid/ to test/"),
    "no split": (without_split, r"class folders \(class 0, class 1, class 2\) are not split"),
    "no test": (without_test, "neither test/ nor val/: move a share"),
    "one deeper": (one_deeper, "birds/ in it has: folder:.*birds"),
    "images in train/": (without_classes, "has no class folders: images lie in it without a class"),
    "only images": (only_images, "images lie in it without a class"),
    "an archive": (packed, "unpack birds.zip"),
    "nested": (nested, "has 1 classes.*the folders class 0, class 1, class 2 in it: are those"),
    "one class": (one_class, "has 1 classes, at least 2"),
    "a test set without labels": (unlabelled_test, "rename it, so that val/ counts"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_layout_is_named_with_what_to_do(
    case: str, tmp_path: Path, capsys: Capture
) -> None:
    """FOUND W7, issue 16.5: wrong split layouts."""
    change, message = WRONG[case]
    change(layouts.folder(tmp_path))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        find_splits(f"folder:{tmp_path}", None)
    assert main(["check", f"folder:{tmp_path}"]) == 1
    assert str(caught.value) in capsys.readouterr().out


def test_folders_in_a_class_folder_are_part_of_it(tmp_path: Path) -> None:
    path = layouts.folder(tmp_path)
    layouts.save(path / "train" / "class 1" / "indoor" / "80.jpg", 80)
    assert ("train/class 1/indoor/80.jpg", 1) in find_splits(f"folder:{path}", None).train


def test_a_hidden_file_among_imagenets_validation_images(tmp_path: Path) -> None:
    """FOUND W7: neither one image too many, nor class folders."""
    path = layouts.imagenet_flat(tmp_path)
    before = find_splits("imagenet", path)
    (path / "val" / ".DS_Store").touch()
    (path / "val" / ".ipynb_checkpoints").mkdir()
    after = find_splits("imagenet", path)
    assert (after.train, after.test) == (before.train, before.test)
    assert "1 x .DS_Store" in after.notes[0] and "1 x .ipynb_checkpoints/" in after.notes[0]
