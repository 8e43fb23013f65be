"""Read folders that are laid out in another way, or refuse them with what to do."""

from __future__ import annotations

import shutil
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


def test_tiny_imagenet_is_read_as_it_unpacks(tmp_path: Path, capsys: Capture) -> None:
    """FOUND W7, issue 16.5."""
    path = tiny_imagenet(tmp_path)
    splits = find_splits(f"folder:{path}", None)
    assert (len(splits.train), len(splits.test)) == (CLASSES * TRAIN, CLASSES * TEST)
    assert splits.class_names == WNIDS
    assert dict(splits.test) == {
        f"val/images/val_{image}.JPEG": label for image, label in SPLITS[1]
    }
    (note,) = splits.notes
    assert "3 x .txt" in note and "1 x folder without labels (test)" in note
    for spelling in (f"folder:{path}", str(path)):
        assert main(["check", spelling]) == 0
        assert "folder without labels" in capsys.readouterr().out


def test_tiny_imagenet_that_was_changed(tmp_path: Path) -> None:
    """Sorted by hand it is read like any other; a class that training lacks is refused."""
    path = tiny_imagenet(tmp_path / "sorted")
    shutil.rmtree(path / "test")
    for image, label in SPLITS[1]:
        folder = path / "val" / WNIDS[label]
        folder.mkdir(exist_ok=True)
        (path / "val" / "images" / f"val_{image}.JPEG").rename(folder / f"val_{image}.JPEG")
    (path / "val" / "images").rmdir()
    truth = {f"val/{WNIDS[label]}/val_{image}.JPEG": label for image, label in SPLITS[1]}
    assert dict(find_splits(f"folder:{path}", None).test) == truth
    lacking = tiny_imagenet(tmp_path / "lacking")
    shutil.rmtree(lacking / "train" / WNIDS[1])
    with pytest.raises(ValueError, match=f"of class {WNIDS[1]}"):
        find_splits(f"folder:{lacking}", None)


def test_what_lies_among_the_images(tmp_path: Path) -> None:
    """FOUND W7: folders in a class folder are part of it; hidden files are none of ImageNet's."""
    path = layouts.folder(tmp_path / "folder")
    layouts.save(path / "train" / "class 1" / "indoor" / "80.jpg", 80)
    assert ("train/class 1/indoor/80.jpg", 1) in find_splits(f"folder:{path}", None).train
    flat = layouts.imagenet_flat(tmp_path / "flat")
    before = find_splits("imagenet", flat)
    (flat / "val" / ".DS_Store").touch()
    (flat / "val" / ".ipynb_checkpoints").mkdir()
    after = find_splits("imagenet", flat)
    assert (after.train, after.test) == (before.train, before.test)
    assert "1 x .DS_Store" in after.notes[0] and "1 x .ipynb_checkpoints/" in after.notes[0]
