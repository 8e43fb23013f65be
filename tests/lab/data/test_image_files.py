"""Check data sets of image files: what the lists say, every mode and size, what is unreadable."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from entprop_fast.lab.data import ImageFiles, ImageSet, load, verify
from entprop_fast.lab.data.official_files import SOURCES
from entprop_fast.lab.data.read_image import read_image
from tests.tiny_data import layouts
from tests.tiny_data.layouts import CLASSES, SPLITS, TEST, TRAIN

SIZE = 28

pytestmark = pytest.mark.filterwarnings("ignore:data set .* do not stand beside:UserWarning")


def files(found: ImageSet) -> ImageFiles:
    assert isinstance(found, ImageFiles)
    return found


WRITTEN: dict[str, tuple[Callable[[Path], Path], str]] = {  # and the second class's name
    "cub": (layouts.cub, "002.Black_footed_1"),
    "pets": (layouts.pets, "american_bulldog"),
    "cars": (layouts.cars, "Acura RL 2012"),
    "imagenet": (layouts.imagenet, "n01443537"),
    "imagenet, flat": (layouts.imagenet_flat, "n01443537"),
    "folder": (layouts.folder, "class 1"),
    "lists": (layouts.listed, "1"),
}


def written(kind: str, data_dir: Path) -> ImageFiles:
    WRITTEN[kind][0](data_dir)
    if kind in ("folder", "lists"):
        return files(load(f"folder:{data_dir}", image_size=SIZE))
    return files(load(kind.partition(",")[0], data_dir=data_dir, image_size=SIZE))


@pytest.mark.parametrize("kind", WRITTEN)
def test_images_and_labels_are_those_of_the_lists(kind: str, tmp_path: Path) -> None:
    data = written(kind, tmp_path)
    counts = (data.num_classes, data.num_train, data.num_test)
    assert counts == (CLASSES, CLASSES * TRAIN, CLASSES * TEST)
    assert data.class_names[1] == WRITTEN[kind][1]
    assert data.official_corruptions == ("imagenet-c" if "imagenet" in kind else None)
    assert data.image_shape == (3, SIZE, SIZE) and data.skipped == ()
    for listed, split in zip((data.train, data.test), SPLITS, strict=True):
        found = set()
        for index in range(len(listed)):
            digits = "".join(c for c in listed.path(index).stem.split("_")[-1] if c.isdigit())
            if kind == "imagenet, flat" and listed is data.test:
                digits = str(100 + int(digits) - 1)
            found.add((int(digits), int(listed.labels[index])))
        assert found == set(split)


def transformed(path: Path) -> torch.Tensor:
    """What the evaluation sees of a file, by torchvision's reader and plain operations."""
    image = datasets.folder.pil_loader(str(path))
    scale = round(SIZE * 256 / 224) / min(image.size)
    width, height = (int(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    cut = image.crop((left, top, left + SIZE, top + SIZE))
    return torch.from_numpy(np.array(cut)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("workers", [0, 2])
def test_test_batches_are_the_test_set_in_order(workers: int, tmp_path: Path) -> None:
    data = written("cub", tmp_path)
    batches = list(data.test_batches(4, workers=workers))
    assert [len(labels) for _, labels in batches] == [4, 2]
    images = torch.cat([images for images, _ in batches])
    assert (images.dtype, batches[0][1].dtype) == (torch.float32, torch.int64)
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.test.labels)
    for index, image in enumerate(images):
        assert torch.equal(image, transformed(data.test.path(index)))


def test_training_images_are_cropped_or_seen_as_in_the_evaluation(tmp_path: Path) -> None:
    data = written("pets", tmp_path)
    plain, cropped = data.training("none"), data.training("resized-crop-flip")
    assert plain[3][1] == cropped[3][1] == data.train.labels[3]
    assert torch.equal(plain[3][0].float() / 255, transformed(data.train.path(3)))
    torch.manual_seed(1)
    found = cropped[3][0]
    torch.manual_seed(1)
    transform = v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip()])
    truth = v2.functional.pil_to_tensor(transform(Image.open(data.train.path(3)).convert("RGB")))
    assert torch.equal(found, truth) and found.dtype == torch.uint8
    assert not torch.equal(found, cropped[3][0])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    layouts.picture(5).convert(mode).save(path)
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", layouts.picture(5).size)
    assert np.array_equal(np.array(image), np.array(Image.open(path).convert("RGB")))


def damaged(path: Path) -> dict[Path, str]:
    """Files that cannot be read beside `path`, an image, and what is wrong with each."""
    content = path.read_bytes()
    broken = {
        "zero.jpg": (b"", "zero bytes"),
        "cut.jpg": (content[: len(content) * 2 // 3], "truncated"),
        "text.jpg": (b"<html>404</html>", "no image that Pillow knows"),
    }
    found = {}
    for name, (new, reason) in broken.items():
        (path.parent / name).write_bytes(new)
        found[path.parent / name] = reason
    deep = path.parent / "deep.png"
    Image.fromarray(np.full((9, 9), 60_000, dtype=np.uint16)).save(deep)
    return found | {deep: "more than 8 bits", path.parent / "gone.jpg": "no such file"}


@pytest.mark.parametrize("draft", [None, 32])
def test_unreadable_files_say_why(draft: int | None, tmp_path: Path) -> None:
    for path, reason in damaged(layouts.save(tmp_path / "4.jpg", 4)).items():
        with pytest.raises(OSError, match=reason) as caught:
            read_image(path, draft=draft)
        assert str(caught.value).startswith(f"{path}: ")


def test_unreadable_training_images_are_named_counted_and_left_out(tmp_path: Path) -> None:
    path = layouts.folder(tmp_path)
    bad = damaged(path / "train" / "class 1" / "1.jpg")
    names = [one.name for one in bad if one.exists()]
    said: list[str] = []
    data = files(load(f"folder:{path}", image_size=SIZE, say=said.append))
    (message,) = said
    assert f"4 of {CLASSES * TRAIN + 4} training images cannot be read" in message
    assert all(name in message for name in names) and "left out" in message
    assert data.num_train == CLASSES * TRAIN and len(data.skipped) == 4
    kept = [data.train.path(i).name for i in range(data.num_train)]
    assert not set(kept) & set(names)
    assert data.train.labels.bincount().tolist() == [TRAIN] * CLASSES
    with pytest.warns(UserWarning, match="4 of 16 training images cannot be read"):
        load(f"folder:{path}", image_size=SIZE)
    for i in range(15):  # counted, and the first ones named
        (path / "train" / "class 0" / f"x{i:02}.jpg").touch()
    load(f"folder:{path}", say=said.append)
    assert "x09.jpg" in said[1] and "x10.jpg" not in said[1] and "and 9 more" in said[1]


def test_a_file_is_opened_again_only_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mended file is read though its size and time are the same, as after chmod or rsync."""
    opened: list[Path] = []

    def noting(path: Path, *, draft: int | None = None) -> Image.Image:
        opened.append(path)
        return read_image(path, draft=draft)

    monkeypatch.setattr(verify, "read_image", noting)
    path = layouts.folder(tmp_path)
    for _ in range(2):
        load(f"folder:{path}")
    assert len(opened) == len(set(opened)) == CLASSES * (TRAIN + TEST)
    victim = path / "test" / "class 0" / "100.jpg"
    content, status = victim.read_bytes(), victim.stat()
    for written in (bytes(len(content)), content):
        victim.write_bytes(written)
        os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        if written != content:
            with pytest.raises(ValueError, match=f"1 of 6 test images cannot be read: {victim}"):
                load(f"folder:{path}")
    assert files(load(f"folder:{path}")).num_test == CLASSES * TEST


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    path = layouts.folder(tmp_path)
    assert load(f"folder:{path}", image_size=SIZE).num_train == CLASSES * TRAIN


def test_a_file_that_breaks_later_is_named(tmp_path: Path) -> None:
    data = written("pets", tmp_path)
    data.test.path(4).unlink()
    with pytest.raises(OSError, match=r"test image 4 cannot be read: .*no such file"):
        list(data.test_batches(3, workers=0))


@pytest.mark.parametrize("kind", ["imagenet", "folder"])
def test_an_evaluation_needs_no_training_images(kind: str, tmp_path: Path) -> None:
    whole = written(kind, tmp_path)
    name = "imagenet" if kind == "imagenet" else f"folder:{tmp_path}"
    where = tmp_path if kind == "imagenet" else None
    for path in (tmp_path / "train").rglob("*.*"):
        path.write_bytes(b"")
    data = files(load(name, data_dir=where, image_size=SIZE, test_only=True))
    assert data.skipped == () and data.num_train == whole.num_train
    (tmp_path / "train").rename(tmp_path / "aside")
    data = files(load(name, data_dir=where, image_size=SIZE, test_only=True))
    assert (data.num_train, data.class_names) == (0, whole.class_names)
    for found, truth in zip(data.test_batches(9), whole.test_batches(9), strict=True):
        assert torch.equal(found[0], truth[0]) and torch.equal(found[1], truth[1])
    with pytest.raises(ValueError, match="lists no training images"):
        load(name, data_dir=where)


def test_train_size_is_a_stratified_subset(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    kept = [
        files(load("imagenet", data_dir=tmp_path, train_size=6, seed=seed)).train
        for seed in (0, 0, 1)
    ]
    assert all(train.labels.bincount().tolist() == [2] * CLASSES for train in kept)
    first, again, other = ([train.path(i) for i in range(6)] for train in kept)
    assert first == again != other


@pytest.mark.filterwarnings("error")
def test_a_set_that_is_not_the_official_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.pets(tmp_path)
    with pytest.warns(UserWarning, match=r"12 training and 6 test .* official one 3,680, 3,669"):
        load("pets", data_dir=tmp_path)
    monkeypatch.setitem(SOURCES, "pets", replace(SOURCES["pets"], counts=(12, 6, 3)))
    load("pets", data_dir=tmp_path)
