"""Find data that lies: what is no data, or is there twice under another name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from entprop_fast.lab.cli.data import main
from entprop_fast.lab.data import ImageFiles, load
from entprop_fast.lab.data.datasets import find_splits
from entprop_fast.lab.data.read_image import read_image
from tests.tiny_data import layouts

Capture = pytest.CaptureFixture[str]


def loaded(path: Path) -> tuple[ImageFiles, list[str]]:
    """The data set in a folder, and what was said of it."""
    said: list[str] = []
    data = load(f"folder:{path}", image_size=28, say=said.append)
    assert isinstance(data, ImageFiles)
    return data, said


def refused(path: Path, message: str) -> str:
    with pytest.raises(ValueError, match=message) as caught:
        find_splits(f"folder:{path}", None)
    return str(caught.value)


def checked(path: Path, code: int, capsys: Capture) -> str:
    assert main(["check", f"folder:{path}"]) == code
    return capsys.readouterr().out


def lists(path: Path, train: str, test: str) -> None:
    (path / "train.txt").write_text(train)
    (path / "test.txt").write_text(test)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return layouts.folder(tmp_path)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """sub/0.png ... sub/5.png and links to the first, and lists of two classes."""
    for number in range(6):
        layouts.save(tmp_path / "sub" / f"{number}.png", number)
    lists(tmp_path, "sub/0.png 0\nsub/1.png 1\n", "sub/2.png 0\nsub/3.png 1\n")
    (tmp_path / "linked.png").symlink_to("sub/0.png")
    os.link(tmp_path / "sub/0.png", tmp_path / "hard.png")
    (tmp_path / "other").symlink_to("sub")
    return tmp_path


LEAK, OUTSIDE = "training image would be a test image", "lies outside of"
SPELLINGS = {
    **dict.fromkeys(("sub/0.png", "./sub/0.png", "sub//0.png", "sub/./0.png"), LEAK),
    **dict.fromkeys(("linked.png", "hard.png", "other/0.png"), LEAK),
    **dict.fromkeys(("sub/../sub/0.png", "{root}/sub/0.png"), OUTSIDE),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_training_image_is_no_test_image(spelling: str, listed: Path) -> None:
    """FOUND W6: the same file, however it is spelt or linked; one with .. may be any file."""
    name = spelling.format(root=listed)
    lists(listed, "sub/0.png 0\nsub/1.png 1\n", f"{name} 0\nsub/3.png 1\n")
    assert "sub/0.png" in refused(listed, SPELLINGS[spelling])


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("test/class 1/link.jpg", "train/class 1/1.jpg", LEAK),
        ("train/class 2/again.jpg", "train/class 1/1.jpg", "would be of two classes"),
        ("test/class 1/again.jpg", "test/class 1/101.jpg", "it would count twice"),
    ],
)
def test_a_file_has_one_place(link: str, target: str, message: str, folder: Path) -> None:
    """FOUND W6: a link from test/ into train/, a file in two classes, or twice in a test."""
    (folder / link).symlink_to(folder / target)
    refused(folder, message)


def test_links_within_a_class_and_of_folders(folder: Path) -> None:
    """FOUND W6: harmless within a training class and of a folder into itself, else a leak."""
    (folder / "train/class 1/again.jpg").symlink_to("1.jpg")
    _, (said,) = loaded(folder)
    assert "links to others of their class" in said and "again.jpg" in said
    (folder / "train/class 1/again.jpg").unlink()
    (folder / "train/class 0/loop").symlink_to(folder / "train/class 0")
    data, (said,) = loaded(folder)
    assert data.num_train == 12 and "1 x links to a folder that holds them" in said
    (folder / "train/class 0/loop").unlink()
    shutil.rmtree(folder / "test/class 2")
    (folder / "test/class 2").symlink_to(folder / "train/class 2")
    refused(folder, LEAK)


LEFTOVER_FOLDERS = (".ipynb_checkpoints", "__MACOSX", "@eaDir", "lost+found", ".cache", ".Trash-0")
LEFTOVER_FILES = ("._1.jpg", ".hidden.png", ".DS_Store", "Thumbs.db", "Desktop.ini", "1.jpg~")


@pytest.mark.parametrize("where", ["train", "train/class 1", "test", "test/class 1"])
def test_what_programs_leave_behind_is_no_data(where: str, folder: Path) -> None:
    """FOUND W7: .ipynb_checkpoints as a class folder, copies inside one, and their like."""
    clean, said = loaded(folder)
    assert not said
    image = (folder / "train/class 1/1.jpg").read_bytes()
    for name in LEFTOVER_FOLDERS:
        (folder / where / name).mkdir()
        (folder / where / name / "1-checkpoint.jpg").write_bytes(image)
    for name in LEFTOVER_FILES:
        (folder / where / name).write_bytes(image)
    data, (line,) = loaded(folder)
    assert data.class_names == clean.class_names
    assert (data.num_train, data.num_test) == (clean.num_train, clean.num_test)
    for name in (*LEFTOVER_FOLDERS, "._*", ".DS_Store", "Thumbs.db", "Desktop.ini"):
        assert f"1 x {name}" in line


def test_suffixes_that_are_read(folder: Path) -> None:
    """FOUND W7: files that Pillow reads were left out unnamed."""
    suffixes = ("jp2", "gif", "jfif", "tif", "bmp", "webp", "JPEG", "PNG", "tga")
    for number, suffix in enumerate(suffixes, start=70):
        path = folder / "train/class 1" / f"{number}.{suffix}"
        layouts.picture(number).save(path, format="JPEG" if suffix == "jfif" else None)
    data, said = loaded(folder)
    assert data.train.labels.bincount().tolist() == [4, 4 + len(suffixes), 4] and not said


def test_what_is_left_out_is_named_and_counted(folder: Path, capsys: Capture) -> None:
    """FOUND W7: at training in one line, in data check as well."""
    for name in ("a.heic", "b.HEIC", "notes.txt", "LICENSE"):
        (folder / "train/class 1" / name).write_bytes(b"x")
    layouts.save(folder / "train/stray.jpg", 3)
    _, (said,) = loaded(folder)
    for text in (said, checked(folder, 0, capsys)):
        assert "2 x .heic (train/class 1/" in text and "1 x .txt (train/class 1/notes.txt)" in text
        assert "1 x files without a suffix" in text and "1 x images beside the class" in text


def test_names_may_begin_with_a_hash(listed: Path) -> None:
    """FOUND W7: #7.png is an image, #hash a class; a line that was commented out is counted."""
    layouts.save(listed / "#7.png", 7)
    lists(listed, "# a head\n#7.png 0\nsub/1.png 1\n#sub/0.png 0\n", "sub/2.png 0\nsub/3.png 1\n")
    data, (said,) = loaded(listed)
    assert data.train.path(0).name == "#7.png" and data.num_train == 2
    assert "left out: 1 x commented lines of train.txt (#sub/0.png 0)" in said
    names = listed / "classes.txt"
    names.write_text("#hash\nplain\n")
    assert find_splits(f"folder:{listed}", None).class_names == ("#hash", "plain")
    names.write_text("# of my project\n#hash\nplain\n")
    refused(listed, r"no training image of 1 of 3 classes: 2 \(plain\)")
    names.write_text("cat\ncat\n")
    refused(listed, "names 'cat' twice")


def test_labels_have_no_holes(listed: Path) -> None:
    """FOUND W7: labels from 1 make an empty class 0."""
    for one, two, message in (
        (1, 2, "of class 0: labels must count from 0, these begin at 1"),
        (0, 3, "no training image of 2 of 4 classes: 1, 2"),
        (2, 3, "no training image of 2 of 4 classes: 0, 1"),
    ):
        lists(listed, f"sub/0.png {one}\nsub/1.png {two}", f"sub/2.png {one}\nsub/3.png {two}")
        refused(listed, message)


def test_every_class_needs_an_image_that_can_be_read(folder: Path, capsys: Capture) -> None:
    """FOUND W7: of all, and of a small share of a rare class."""
    rare, *others = sorted((folder / "train/class 1").iterdir())
    for file in others:
        file.unlink()
    for number in range(200, 240):
        layouts.save(folder / "train/class 0" / f"{number}.jpg", number)
    with pytest.raises(ValueError, match=r"train_size = 3 leaves no .*class 1"):
        load(f"folder:{folder}", train_size=3)
    rare.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no training image of 1 of 3 classes: 1 \(class 1\)"):
        loaded(folder)
    assert "no training image can be read of class 1" in checked(folder, 1, capsys)


def test_a_class_without_test_images_is_said(folder: Path) -> None:
    """FOUND W7: train and test folders that differ."""
    shutil.rmtree(folder / "test/class 2")
    _, said = loaded(folder)
    assert said == [f"data set 'folder:{folder}': no test image of 1 of 3 classes: class 2"]
    (folder / "test/class 1").rename(folder / "test/Class 1")
    refused(folder, r"'Class 1', which no training .* nearest: 'class")


def test_a_copied_class_folder_is_no_class(folder: Path) -> None:
    """FOUND W7: by what it holds, not by its name: uncompressed files are all of one size."""
    copy = folder / "train/class 1 - Copy"
    shutil.copytree(folder / "train/class 1", copy)
    refused(folder, "train/class 1 and train/class 1 - Copy hold the same")
    for file in copy.iterdir():
        content = bytearray(file.read_bytes())
        content[-10] ^= 1
        file.write_bytes(content)
    assert len(find_splits(f"folder:{folder}", None).class_names) == 4


KINDS = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
    "an HTML page": b"\n<!DOCTYPE html>\n<html><body>404</body></html>",
    "a git-annex pointer": b"/annex/objects/SHA256E-s1--aa.jpg\n",
    "a JSON file": b'{"message": "rate limit exceeded"}',
    "an SVG drawing": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "zeros": bytes(3000),
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "text": b"nothing here",
    "a PostScript file": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
}


@pytest.mark.parametrize("kind", [*KINDS, "a link to nothing"])
def test_what_is_saved_as_an_image_and_is_none(kind: str, tmp_path: Path) -> None:
    """FOUND W7, issue 16.5: named by its kind; PostScript is never run."""
    file = tmp_path / "1.jpg"
    if kind in KINDS:
        file.write_bytes(KINDS[kind])
    else:
        file.symlink_to(tmp_path / "gone" / "1.jpg")
    with pytest.raises(OSError, match=f"{file}: it is .*{kind}"):
        read_image(file)


def test_pixels_tell_the_same_image(folder: Path, capsys: Capture) -> None:
    """FOUND W6: by content, whatever name, suffix or metadata it has."""
    copy = folder / "test/class 0/copy.bmp"
    with Image.open(folder / "train/class 0/0.png") as image:
        image.convert("RGB").save(copy)
    for place, code, wanted in (
        ("test/class 0", 1, "training images: 1 (test/class 0/copy.bmp = train/class 0/0.png)"),
        ("train/class 0", 0, "training images that are there twice: 1"),
        ("train/class 1", 1, "images in two classes: 1"),
    ):
        copy = copy.rename(folder / place / copy.name)
        assert wanted in checked(folder, code, capsys)


def test_a_number_that_a_file_system_gives_twice_is_no_proof(
    listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FOUND W6: network file systems may give two files one inode; sizes tell them apart."""
    real = os.stat

    def one_inode(path: str | Path, **more: bool) -> os.stat_result:
        found = real(path, **more)
        return os.stat_result((found.st_mode, 7, *tuple(found)[2:]))

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", one_inode)
        assert len(find_splits(f"folder:{listed}", None).train) == 2
