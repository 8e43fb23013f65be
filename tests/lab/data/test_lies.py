"""Data that lies: what a folder holds that is no data, or is there twice, under another name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from entprop_fast.lab.cli.data import main
from entprop_fast.lab.data import ImageFiles, load
from entprop_fast.lab.data.datasets import find_splits
from entprop_fast.lab.data.read_image import read_image
from entprop_fast.lab.data.stray_files import IMAGE_SUFFIXES, is_image, is_leftover
from tests.tiny_data import layouts

Capture = pytest.CaptureFixture[str]

SIZE = 28


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def loaded(path: Path) -> tuple[ImageFiles, list[str]]:
    """The data set in a folder, and what was said of it."""
    said: list[str] = []
    data = load(f"folder:{path}", image_size=SIZE, say=said.append)
    assert isinstance(data, ImageFiles)
    return data, said


def lists(path: Path, train: str, test: str) -> Path:
    (path / "train.txt").write_text(train)
    (path / "test.txt").write_text(test)
    return path


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """sub/0.png ... sub/5.png, and lists of two classes."""
    for number in range(6):
        layouts.save(tmp_path / "sub" / f"{number}.png", number)
    return lists(tmp_path, "sub/0.png 0\nsub/1.png 1\n", "sub/2.png 0\nsub/3.png 1\n")


def linked(path: Path) -> str:
    (path / "linked.png").symlink_to("sub/0.png")
    return "linked.png"


def hard_linked(path: Path) -> str:
    os.link(path / "sub/0.png", path / "hard.png")
    return "hard.png"


def in_a_linked_folder(path: Path) -> str:
    (path / "other").symlink_to("sub")
    return "other/0.png"


SPELLINGS: dict[str, Callable[[Path], str]] = {
    "as it is": lambda _: "sub/0.png",
    "./": lambda _: "./sub/0.png",
    "//": lambda _: "sub//0.png",
    "/./": lambda _: "sub/./0.png",
    "symbolic link": linked,
    "hard link": hard_linked,
    "linked folder": in_a_linked_folder,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_training_image_is_no_test_image(spelling: str, listed: Path) -> None:
    """FOUND W6: the same file, however it is spelt or linked."""
    name = SPELLINGS[spelling](listed)
    lists(listed, "sub/0.png 0\nsub/1.png 1\n", f"{name} 0\nsub/3.png 1\n")
    with pytest.raises(ValueError, match="training image would be a test image") as caught:
        find_splits(f"folder:{listed}", None)
    assert "sub/0.png" in str(caught.value)


@pytest.mark.parametrize("name", ["sub/../sub/0.png", "{root}/sub/0.png"])
def test_what_leaves_the_folder_is_refused(name: str, listed: Path) -> None:
    """FOUND W6: a path with .. or from the root may be any file."""
    lists(listed, "sub/0.png 0\nsub/1.png 1\n", f"{name.format(root=listed)} 0\nsub/3.png 1\n")
    with pytest.raises(ValueError, match="lies outside of"):
        find_splits(f"folder:{listed}", None)


def test_class_folders_share_no_file(tmp_path: Path) -> None:
    """FOUND W6: a link from test/ into train/, a folder that is a link to one."""
    path = layouts.folder(tmp_path)
    victim = path / "test" / "class 1" / "link.jpg"
    victim.symlink_to(path / "train" / "class 1" / "1.jpg")
    with pytest.raises(ValueError, match="training image would be a test image"):
        find_splits(f"folder:{path}", None)
    victim.unlink()
    shutil.rmtree(path / "test" / "class 2")
    (path / "test" / "class 2").symlink_to(path / "train" / "class 2")
    with pytest.raises(ValueError, match="training image would be a test image"):
        find_splits(f"folder:{path}", None)


def test_a_file_has_one_class_and_counts_once_in_a_test(tmp_path: Path) -> None:
    """FOUND W6: the same file in two classes, or twice in the test set; in its class it counts."""
    path = layouts.folder(tmp_path)
    for split, of, at, message in (
        ("train", "class 1/1.jpg", "class 2/again.jpg", "would be of two classes"),
        ("test", "class 1/101.jpg", "class 1/again.jpg", "it would count twice"),
    ):
        link = path / split / at
        os.link(path / split / of, link)
        with pytest.raises(ValueError, match=message):
            find_splits(f"folder:{path}", None)
        link.unlink()
    (path / "train/class 1/again.jpg").symlink_to("1.jpg")
    _, said = loaded(path)
    assert len(said) == 1 and "links to others of their class" in said[0] and "again.jpg" in said[0]


def test_a_folder_that_is_linked_into_itself_ends(tmp_path: Path) -> None:
    """FOUND W6."""
    path = layouts.folder(tmp_path)
    (path / "train" / "class 0" / "loop").symlink_to(path / "train" / "class 0")
    data, said = loaded(path)
    assert data.num_train == 12 and "1 x links to a folder that holds them" in said[0]


LEFTOVER_FOLDERS = (".ipynb_checkpoints", "__MACOSX", "@eaDir", "lost+found", ".cache", ".Trash-0")
LEFTOVER_FILES = ("._1.jpg", ".hidden.png", ".DS_Store", "Thumbs.db", "desktop.ini", "1.jpg~")


@pytest.mark.parametrize("where", ["train", "train/class 1", "test", "test/class 1"])
def test_what_programs_leave_behind_is_no_data(where: str, tmp_path: Path) -> None:
    """FOUND W7: .ipynb_checkpoints as a class folder, copies inside one, and their like."""
    path = layouts.folder(tmp_path)
    clean, said = loaded(path)
    assert not said
    image = (path / "train" / "class 1" / "1.jpg").read_bytes()
    for folder in LEFTOVER_FOLDERS:
        (path / where / folder).mkdir()
        (path / where / folder / "1-checkpoint.jpg").write_bytes(image)
    for name in LEFTOVER_FILES:
        (path / where / name).write_bytes(image)
    data, said = loaded(path)
    assert data.class_names == clean.class_names
    assert (data.num_train, data.num_test) == (clean.num_train, clean.num_test)
    (line,) = said
    for name in (*LEFTOVER_FOLDERS, "._*", ".DS_Store", "Thumbs.db", "desktop.ini"):
        assert f"1 x {name}" in line


@pytest.mark.parametrize(
    ("name", "leftover", "image"),
    [
        ("cat.JPG", False, True),
        ("cat.jfif", False, True),
        ("#7.png", False, True),
        ("Copy of cat.webp", False, True),
        ("cat.heic", False, False),
        ("cat", False, False),
        (".cat.jpg", True, False),
        ("Desktop.ini", True, False),
        ("@eaDir", True, False),
    ],
)
def test_names(name: str, leftover: bool, image: bool) -> None:
    """FOUND W7."""
    assert (is_leftover(name), is_image(name)) == (leftover, image)


@pytest.mark.parametrize(
    "suffix", ["jp2", "gif", "jfif", "tif", "bmp", "webp", "JPEG", "PNG", "tga"]
)
def test_suffixes_that_are_read(suffix: str, tmp_path: Path) -> None:
    """FOUND W7: files that Pillow reads were left out unnamed."""
    path = layouts.folder(tmp_path)
    assert f".{suffix.lower()}" in IMAGE_SUFFIXES
    kind = "JPEG" if suffix == "jfif" else None
    layouts.picture(77).save(path / "train" / "class 1" / f"new.{suffix}", format=kind)
    data, said = loaded(path)
    assert data.num_train == 13 and not said
    assert data.train.labels.bincount().tolist() == [4, 5, 4]


def test_the_first_frame_counts(tmp_path: Path) -> None:
    """FOUND W7: an animation is its first picture."""
    first, second = (layouts.picture(number).resize((9, 9)) for number in (1, 2))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    first.save(tmp_path / "one.gif")
    one, several = (np.array(read_image(tmp_path / name)) for name in ("one.gif", "a.gif"))
    assert np.array_equal(one, several)


def test_what_is_left_out_is_named_and_counted(tmp_path: Path, capsys: Capture) -> None:
    """FOUND W7: at training in one line, in data check as well."""
    path = layouts.folder(tmp_path)
    for name in ("a.heic", "b.HEIC", "notes.txt", "LICENSE"):
        (path / "train" / "class 1" / name).write_bytes(b"x")
    layouts.save(path / "train" / "stray.jpg", 3)
    _, said = loaded(path)
    assert len(said) == 1 and main(["check", f"folder:{path}"]) == 0
    for text in (said[0], capsys.readouterr().out):
        assert "2 x .heic (train/class 1/" in text and "1 x .txt (train/class 1/notes.txt)" in text
        assert "1 x files without a suffix" in text and "1 x images beside the class" in text


def test_a_line_of_a_list_may_begin_with_a_hash(listed: Path) -> None:
    """FOUND W7: a file named #7.png is an image; a line that was commented out is counted."""
    layouts.save(listed / "#7.png", 7)
    lists(listed, "# a head\n#7.png 0\nsub/1.png 1\n#sub/0.png 0\n", "sub/2.png 0\nsub/3.png 1\n")
    data, said = loaded(listed)
    assert data.train.path(0).name == "#7.png" and data.num_train == 2
    assert said == [
        f"data set 'folder:{listed}': left out: 1 x commented lines of train.txt (#sub/0.png 0)"
    ]


def test_a_class_may_be_called_with_a_hash(listed: Path) -> None:
    """FOUND W7: a name taken for a comment would give every later class another's name."""
    (listed / "classes.txt").write_text("#hash\nplain\n")
    assert find_splits(f"folder:{listed}", None).class_names == ("#hash", "plain")
    (listed / "classes.txt").write_text("# of my project\n#hash\nplain\n")
    with pytest.raises(ValueError, match=r"no training image of 1 of 3 classes: 2 \(plain\)"):
        find_splits(f"folder:{listed}", None)
    (listed / "classes.txt").write_text("cat\ncat\n")
    with pytest.raises(ValueError, match="names 'cat' twice"):
        find_splits(f"folder:{listed}", None)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("1 2", "of class 0: labels must count from 0, these begin at 1"),
        ("0 3", "no training image of 2 of 4 classes: 1, 2"),
        ("2 3", "no training image of 2 of 4 classes: 0, 1"),
    ],
)
def test_labels_have_no_holes(labels: str, message: str, listed: Path) -> None:
    """FOUND W7: labels from 1 make an empty class 0."""
    first, second = labels.split()
    text = "sub/{}.png {}\nsub/{}.png {}\n"
    lists(listed, text.format(0, first, 1, second), text.format(2, first, 3, second))
    with pytest.raises(ValueError, match=message):
        find_splits(f"folder:{listed}", None)


def test_a_class_needs_an_image_that_can_be_read(tmp_path: Path, capsys: Capture) -> None:
    """FOUND W7: a class whose images are all unreadable is refused by name."""
    path = layouts.folder(tmp_path)
    for file in (path / "train" / "class 1").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no training image of 1 of 3 classes: 1 \(class 1\)"):
        loaded(path)
    assert main(["check", f"folder:{path}"]) == 1
    assert "no training image can be read of class 1" in capsys.readouterr().out


def test_a_subset_keeps_every_class(tmp_path: Path) -> None:
    """FOUND W7: a small share of a rare class is no image at all."""
    path = layouts.folder(tmp_path)
    rare = sorted((path / "train" / "class 1").iterdir())
    for file in rare[1:]:
        file.unlink()
    for number in range(200, 240):
        layouts.save(path / "train" / "class 0" / f"{number}.jpg", number)
    with pytest.raises(ValueError, match=r"train_size = 3 leaves no .*class 1"):
        load(f"folder:{path}", train_size=3)


def test_a_class_without_test_images_is_said(tmp_path: Path) -> None:
    """FOUND W7: train and test folders that differ."""
    path = layouts.folder(tmp_path)
    shutil.rmtree(path / "test" / "class 2")
    _, said = loaded(path)
    assert said == [f"data set 'folder:{path}': no test image of 1 of 3 classes: class 2"]
    (path / "test" / "class 1").rename(path / "test" / "Class 1")
    with pytest.raises(ValueError, match=r"'Class 1', which no training .* nearest: 'class"):
        loaded(path)


def test_a_copied_class_folder_is_no_class(tmp_path: Path) -> None:
    """FOUND W7: by what it holds, not by its name: uncompressed files are all of one size."""
    path = layouts.folder(tmp_path)
    shutil.copytree(path / "train" / "class 1", path / "train" / "class 1 - Copy")
    with pytest.raises(ValueError, match="train/class 1 and train/class 1 - Copy hold the same"):
        find_splits(f"folder:{path}", None)
    for file in (path / "train" / "class 1 - Copy").iterdir():
        content = bytearray(file.read_bytes())
        content[-10] ^= 1
        file.write_bytes(content)
    assert len(find_splits(f"folder:{path}", None).class_names) == 4


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


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_as_an_image_and_is_none(kind: str, tmp_path: Path) -> None:
    """FOUND W7, issue 16.5: named by its kind; PostScript is never run."""
    file = tmp_path / "1.jpg"
    file.write_bytes(KINDS[kind])
    with pytest.raises(OSError, match=f"no image that Pillow knows, but {kind}"):
        read_image(file)


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").symlink_to(tmp_path / "gone" / "1.jpg")
    with pytest.raises(OSError, match="a link to nothing"):
        read_image(tmp_path / "1.jpg")


def test_pixels_tell_the_same_image(tmp_path: Path, capsys: Capture) -> None:
    """FOUND W6: by content, whatever name, suffix or metadata it has."""
    path = layouts.folder(tmp_path)
    with Image.open(path / "train" / "class 0" / "0.png") as image:
        image.convert("RGB").save(path / "test" / "class 0" / "copy.bmp")
    assert main(["check", f"folder:{path}"]) == 1
    wanted = "test images that are training images: 1 (test/class 0/copy.bmp = train/class 0/0.png)"
    assert wanted in capsys.readouterr().out
    (path / "test" / "class 0" / "copy.bmp").rename(path / "train" / "class 0" / "copy.bmp")
    assert main(["check", f"folder:{path}"]) == 0
    assert "training images that are there twice: 1" in capsys.readouterr().out
    (path / "train" / "class 0" / "copy.bmp").rename(path / "train" / "class 1" / "copy.bmp")
    assert main(["check", f"folder:{path}"]) == 1
    assert "images in two classes: 1" in capsys.readouterr().out


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
