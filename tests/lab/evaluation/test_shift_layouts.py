"""Further sets of the same classes: each official layout is read, to the image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from entprop_fast.lab.data import ImageSet
from entprop_fast.lab.data.shift_sets import open_shifts
from tests.lab.evaluation.support import (
    DATA,
    IMAGES,
    LABELS,
    SIDE,
    WNIDS,
    Bytes,
    tiny_imagenet,
    write_classes,
)
from tests.tiny_data.idx import write as write_idx


def read(text: str, data: ImageSet = DATA, batch_size: int = 5) -> tuple[Tensor, Tensor]:
    """All images of a set as bytes ``[N, H, W, C]``, and labels; batches in any order agree."""
    (one,) = open_shifts((text,), data, batch_size, workers=0)
    starts = range(0, one.images, batch_size)
    batches = list(one.batches(starts))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    again = next(iter(one.batches(starts[-1:])))
    assert torch.equal(again[0], batches[-1][0]) and len(images) == len(labels) == one.images
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1), labels


def same(found: tuple[Tensor, Tensor], images: Bytes, labels: Any) -> None:
    assert np.array_equal(found[0].numpy(), images) and found[1].tolist() == list(labels)


def test_arrays_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "new.npz"
    np.savez(path, images=IMAGES, labels=LABELS, class_names=np.array(DATA.class_names))
    for text in (f"new={path}", f"new=npz:{path}"):
        same(read(text), IMAGES, LABELS)
    np.savez(path, images=IMAGES, labels=LABELS, class_names=np.array("abcd"))
    with pytest.raises(ValueError, match="class_names"):
        read(f"new={path}")
    test = np.arange(12) % 3 == 0
    np.savez(path, images=IMAGES, labels=np.arange(12) // 3, test=test)
    same(read(f"new={path}"), IMAGES[test], range(4))


def test_idx_files_test_images(tmp_path: Path) -> None:
    grey = replace(DATA, test_images=DATA.test_images[:, :1], train_images=DATA.train_images[:, :1])
    images = IMAGES[..., 0]
    parts = (images[:8], LABELS[:8].astype(np.uint8), images, LABELS.astype(np.uint8))
    write_idx(tmp_path, parts)
    for text in (f"usps={tmp_path}", f"usps=idx:{tmp_path}"):
        same(read(text, grey), images[..., None], LABELS)
    with pytest.raises(ValueError, match=r"usps.*\[1, 8, 8\].*tiny \[3, 8, 8\]"):
        read(f"usps={tmp_path}")


def test_what_tells_a_set_from_what_was_there_before(tmp_path: Path) -> None:
    """Saved counts go by it."""
    np.savez(npz := tmp_path / "new.npz", images=IMAGES, labels=LABELS)
    (bar := tmp_path / "bar").mkdir()
    np.save(bar / "labels.npy", LABELS)
    np.save(bar / "ripple.npy", IMAGES)
    write_classes(sketch := tmp_path / "sketch", count=2)
    image = next(sketch.rglob("*.JPEG"))
    files = tiny_imagenet(tmp_path / "clean")

    def states() -> list[str]:
        cases: list[tuple[Path, ImageSet]] = [(npz, DATA), (bar, DATA), (sketch, files)]
        return [open_shifts((f"x={p}",), data, 5)[0].state() for p, data in cases]

    before = states()
    assert states() == before and len(set(before)) == 3
    np.savez(npz, images=IMAGES, labels=LABELS[::-1])
    np.save(bar / "ripple.npy", IMAGES[::-1])
    image.write_bytes(image.read_bytes() + b" ")
    assert not set(states()) & set(before)


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_cifar_10_1(tmp_path: Path, version: str) -> None:
    np.save(tmp_path / f"cifar10.1_{version}_data.npy", IMAGES)
    np.save(tmp_path / f"cifar10.1_{version}_labels.npy", LABELS.astype(np.int32))
    same(read(f"new={tmp_path}"), IMAGES, LABELS)
    (one,) = open_shifts((f"new={tmp_path}",), DATA, 5)
    assert one.source == f"official CIFAR-10.1, {version}"
    np.save(tmp_path / f"cifar10.1_{version}_labels.npy", LABELS[1:])
    with pytest.raises(ValueError, match="12 whole numbers"):
        read(f"new={tmp_path}")


def test_an_array_for_each_kind(tmp_path: Path) -> None:
    """CIFAR-10-C-bar: 5 severities in each kind's file, the labels of them all in one."""
    np.save(tmp_path / "labels.npy", LABELS)
    np.save(tmp_path / "blue_noise_sample.npy", IMAGES)
    np.save(tmp_path / "ripple.npy", 255 - IMAGES)
    both = np.concatenate([IMAGES, 255 - IMAGES])
    for size in (1, 5, 7, 24, 100):
        same(read(f"bar={tmp_path}", batch_size=size), both, [*LABELS, *LABELS])
    np.save(tmp_path / "ripple.npy", IMAGES[:, :4])
    with pytest.raises(ValueError, match=r"ripple\.npy holds uint8 \(12, 4, 8, 3\)"):
        read(f"bar={tmp_path}")
    np.save(tmp_path / "ripple.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"ripple\.npy cannot be read"):
        read(f"bar={tmp_path}")
    header = b"\x93NUMPY\x01\x00\x10\x00{'descr': junk \n"
    for content in (b"PK\x03\x04junk", header):  # what NumPy takes for zip, and for Python
        (tmp_path / "ripple.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"ripple\.npy cannot be read"):
            read(f"bar={tmp_path}")
    np.save(tmp_path / "labels.npy", LABELS + 1)
    with pytest.raises(ValueError, match="0 to 3"):
        read(f"bar={tmp_path}")


def levels(found: tuple[Tensor, Tensor]) -> list[float]:
    """The brightness of each image, as the class that `write_classes` gave it."""
    return (found[0].float().mean(dim=(1, 2, 3)) / 255 * len(WNIDS) - 0.5).round().tolist()


def test_class_folders(tmp_path: Path) -> None:
    """ImageNet-Sketch: a folder a wnid; a data set's test images, if it has splits."""
    data = tiny_imagenet(tmp_path / "clean")
    write_classes(tmp_path / "sketch", count=2)
    for place in ("sketch", "folder:sketch"):
        text = f"sketch={place.replace('sketch', str(tmp_path / 'sketch'))}"
        found = read(text, data)
        assert found[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] == levels(found)
    assert read(f"own={tmp_path / 'clean'}", data)[1].tolist() == data.test_labels.tolist()
    (tmp_path / "sketch" / WNIDS[0]).rename(tmp_path / "sketch" / "n00000001")
    with pytest.raises(ValueError, match=r"n00000001 is none of the 4 classes of imagenet"):
        read(f"sketch={tmp_path / 'sketch'}", data)


def test_class_folders_by_number(tmp_path: Path) -> None:
    """ImageNet-v2: 10 is the eleventh class, and not, as a sort of texts has it, the third."""
    names = tuple(f"n{number:08d}" for number in range(12))
    data = replace(tiny_imagenet(tmp_path / "clean"), class_names=names)
    write_classes(tmp_path / "v2", count=1, wnids=tuple(map(str, range(12))))
    found = read(f"v2={tmp_path / 'v2'}", data)
    assert sorted(found[1].tolist()) == list(range(12))
    level = (found[0].float().mean(dim=(1, 2, 3)) / 255 * 12 - 0.5).round()
    assert torch.equal(level.long(), found[1])
    (tmp_path / "v2" / "11").rename(tmp_path / "v2" / "12")
    with pytest.raises(ValueError, match="12 is none of the 12 classes"):
        read(f"v2={tmp_path / 'v2'}", data)


def test_kinds_and_severities(tmp_path: Path) -> None:
    """ImageNet-3DCC and ImageNet-C-bar."""
    data = tiny_imagenet(tmp_path / "clean")
    for kind in ("near_focus", "fog_3d"):
        for severity in range(1, 6):
            write_classes(tmp_path / "3dcc" / kind / str(severity), count=1)
    found = read(f"3dcc={tmp_path / '3dcc'}", data)
    assert found[1].tolist() == [0, 1, 2, 3] * 10 == levels(found)
    (one,) = open_shifts((f"3dcc={tmp_path / '3dcc'}",), data, 5)
    assert one.source.endswith("3dcc, 2 kinds")


def test_files_for_grey_images(tmp_path: Path) -> None:
    grey = replace(DATA, test_images=DATA.test_images[:, :1], train_images=DATA.train_images[:, :1])
    for name in DATA.class_names[:2]:
        (tmp_path / name).mkdir()
        Image.new("RGB", (SIDE, SIDE), (10, 100, 200)).save(tmp_path / name / "a.png")
    images, labels = read(f"colour={tmp_path}", grey)
    assert images.shape == (2, SIDE, SIDE, 1) and labels.tolist() == [0, 1]
    assert (images == round(0.299 * 10 + 0.587 * 100 + 0.114 * 200)).all()
    (one,) = open_shifts((f"colour={tmp_path}",), grey, 5)
    assert one.source.endswith("2 of the 4 classes")


def test_what_a_class_folder_holds_counts_or_is_named(tmp_path: Path) -> None:
    for name in ("class1/a.png", "class1/more/b.png", "stray.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[0]).save(tmp_path / name)
    (tmp_path / "class1/notes.txt").touch()
    (one,) = open_shifts((f"x={tmp_path}",), DATA, 5)
    assert one.images == 2  # as where the data set is of folders
    assert "left out: " in one.note and "notes.txt" in one.note and "stray.png" in one.note
