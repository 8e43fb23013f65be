"""Read official lists and folders, and refuse them where something is wrong: what and where."""

from __future__ import annotations

import codecs
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from entprop_fast.lab.cli.data import main
from entprop_fast.lab.data.datasets import find_splits
from tests.tiny_data import layouts
from tests.tiny_data.layouts import CLASSES, SPLITS, TEST, TRAIN, WNIDS

Change = Callable[[Path], object]
Capture = pytest.CaptureFixture[str]
CUB = "CUB_200_2011"
LABELS, SPLIT = f"{CUB}/image_class_labels.txt", f"{CUB}/train_test_split.txt"


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout in one folder."""
    data_dir = tmp_path_factory.mktemp("sets")
    for write in (layouts.cub, layouts.pets, layouts.cars):
        write(data_dir)
    layouts.listed(data_dir / "lists")
    layouts.folder(data_dir / "classes")
    layouts.imagenet_flat(data_dir / "flat")
    return data_dir


@pytest.fixture
def sets(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "sets"))


def swap(file: str, old: str | None, new: str) -> Change:
    """Replace `old` (None: everything) by `new` once."""

    def change(sets: Path) -> None:
        content = (sets / file).read_bytes()
        assert old is None or old.encode() in content
        wanted = new.encode("utf-8", "surrogateescape")
        (sets / file).write_bytes(
            wanted if old is None else content.replace(old.encode(), wanted, 1)
        )

    return change


def aside(file: str) -> Change:
    return lambda sets: (sets / file).rename(sets / "aside")


def move(*pairs: tuple[str, str]) -> Change:
    """Rename what is in classes/, one after the other; onto "" it is removed."""

    def change(sets: Path) -> None:
        path = sets / "classes"
        for old, new in pairs:
            if not new:
                shutil.rmtree(path / old)
                continue
            (path / new).parent.mkdir(parents=True, exist_ok=True)
            (path / old).rename(path / new)

    return change


def add(*files: str, but: Change = lambda sets: None) -> Change:
    """Put files into classes/; images are such."""

    def change(sets: Path) -> None:
        but(sets)
        for name in files:
            file = sets / "classes" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            layouts.save(file, 1) if file.suffix == ".jpg" else file.touch()

    return change


EMPTY = move(("train", ""), ("test", ""))
OUT = [(f"train/class {number}", f"class {number}") for number in range(CLASSES)]


def one_image_more(sets: Path) -> None:
    layouts.save(sets / "flat" / "val" / "another.JPEG", 1)


# data set, what is done to it, and what the error names
WRONG: list[tuple[str, Change, str]] = [
    ("cub", swap(LABELS, "1 1\n", "1 9\n"), "label 8"),
    ("cub", swap(LABELS, "2 2\n", "2 two\n"), "'two'"),
    ("cub", swap(f"{CUB}/images.txt", "3 003", "3003"), "images.txt, line 3: "),
    ("cub", swap(SPLIT, "1 1\n", "99 1\n"), "image 99"),
    ("cub", swap(SPLIT, "1 1\n", "1 2\n"), r"image 1 \(2\)"),
    ("cub", swap(f"{CUB}/images.txt", "1 001", "1 ../../001"), "lies outside of"),
    ("cub", aside(f"{CUB}/classes.txt"), "lacks classes.txt"),
    ("pets", swap("annotations/test.txt", "Abyssinian_100", "Abyssinian_0"), "_0.jpg twice"),
    ("pets", swap("annotations/test.txt", "Abyssinian_100 1", "Abyssinian_100 2"), "label"),
    ("pets", swap("annotations/trainval.txt", None, "\n"), "no training images"),
    ("pets", swap("annotations/test.txt", None, "\udcff\udcfe"), "test.txt is no list"),
    ("pets", aside("annotations/test.txt"), r"lacks test\.txt"),
    ("cars", swap("devkit/cars_meta.mat", None, "MATLAB 5.0"), "cars_meta.mat cannot be read"),
    ("cars", aside("cars_test_annos_withlabels.mat"), "lacks cars_test_annos_withlabels.mat"),
    ("folder:lists", swap("lists/train.txt", "pictures/", "/pictures/"), "lies outside of"),
    ("folder:lists", swap("lists/train.txt", ".jpg 0", ".jpg -1"), "has label -1"),
    ("folder:lists", swap("lists/val.txt", ".jpg 0", ".jpg 3"), "has label 3"),
    ("folder:lists", aside("lists/val.txt"), "neither test.txt nor val.txt"),
    ("folder:classes", add("test/cat/1.jpg"), "class 'cat', which no training folder has"),
    ("folder:classes", add("train/cat/1.heic"), r"without an image: train/cat .*1 x \.heic"),
    ("folder:classes", move(("train", "training")), "rename training/ to train/"),
    (
        "folder:classes",
        move(("train", "T"), ("T", "Train"), ("test", "Test")),
        "rename Train/ to train/, Test/ to test/",
    ),
    ("folder:classes", move(("test", "valid")), "rename valid/ to test/"),
    (
        "folder:classes",
        move(*OUT, ("train", ""), ("test", "")),
        r"class folders \(class 0, class 1, class 2\) are not split",
    ),
    ("folder:classes", move(("test", "")), "neither test/ nor val/: move a share"),
    (
        "folder:classes",
        move(("train", "birds/train"), ("test", "birds/test")),
        "birds/ in it has: folder:.*birds",
    ),
    (
        "folder:classes",
        add("train/1.jpg", but=move(("train", ""))),
        "has no class folders: images lie in it without a class",
    ),
    ("folder:classes", add("1.jpg", but=EMPTY), "images lie in it without a class"),
    ("folder:classes", add("birds.zip", but=EMPTY), "unpack birds.zip"),
    (
        "folder:classes",
        move(("train", "a"), ("a", "train/images"), ("test", "b"), ("b", "test/images")),
        "has 1 classes.*the folders class 0, class 1, class 2 in it: are those",
    ),
    (
        "folder:classes",
        move(*((f"{split}/class {i}", "") for split in ("train", "test") for i in (1, 2))),
        "has 1 classes, at least 2",
    ),
    (
        "folder:classes",
        add("test/1.jpg", but=move(("test", "val"))),
        "rename it, so that val/ counts",
    ),
    ("flat", one_image_more, "has 6 labels for 7 images in val/"),
    ("flat", aside("flat/ILSVRC2012_devkit_t12"), "unpack ILSVRC2012_devkit_t12"),
]


@pytest.mark.parametrize(("name", "change", "named"), WRONG)
def test_refused(name: str, change: Change, named: str, sets: Path, capsys: Capture) -> None:
    """FOUND W7, issue 16.5: at training, and in as many words by data check."""
    name, data_dir = ("imagenet", sets / "flat") if name == "flat" else (name, sets)
    find_splits(name, data_dir)
    change(sets)
    with pytest.raises((ValueError, FileNotFoundError), match=named) as caught:
        find_splits(name, data_dir)
    assert main(["check", name, "--data-dir", str(data_dir)]) == 1
    assert str(caught.value) in capsys.readouterr().out


def test_folder_paths(pristine: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no path"):
        find_splits("folder:", pristine)
    with pytest.raises(ValueError, match="takes no --data-dir"):
        find_splits(f"folder:{pristine}/lists", pristine)
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        find_splits(f"folder:{tmp_path}", None)


def test_what_is_read_all_the_same(sets: Path) -> None:
    """Lists before folders, fewer test classes, a byte order mark of an editor."""
    both = layouts.folder(layouts.listed(sets / "both"))
    assert all("my image" in file for file, _ in find_splits(f"folder:{both}", None).train)
    shutil.rmtree(sets / "classes" / "test" / "class 0")
    assert {label for _, label in find_splits("folder:classes", sets).test} == {1, 2}
    before = find_splits("folder:lists", sets)
    for path in (sets / "lists").glob("*.txt"):
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert find_splits("folder:lists", sets) == before


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
