"""Further sets of the same classes: each official layout is read, to the image; drops are sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from entprop_fast.lab.cli.evaluate import main
from entprop_fast.lab.data import ImageData, ImageSet
from entprop_fast.lab.data.image_data import ShiftSet
from entprop_fast.lab.data.shift_sets import open_shifts
from entprop_fast.lab.evaluation import Evaluation, EvaluationOptions, evaluate_model
from entprop_fast.lab.evaluation.evaluation_tables import markdown
from entprop_fast.lab.experiments.comparison.comparison_tables import cells
from entprop_fast.lab.experiments.comparison.method_rows import method_rows
from tests.lab.evaluation.support import (
    SIDE,
    WNIDS,
    Brightness,
    tiny_cifar,
    tiny_imagenet,
    write_classes,
)
from tests.tiny_data.idx import write as write_idx

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
DATA = tiny_cifar(count=20)
LABELS = np.arange(12) % 4
IMAGES: Bytes = np.random.default_rng(2).integers(0, 256, (12, SIDE, SIDE, 3), np.uint8)


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


def carrying() -> ImageData:
    """A data set with a shift of its own, whose images are darker, and one that is the test set."""
    images, labels = DATA.test_images, DATA.test_labels
    dark = ShiftSet("dark", (images / 4).to(torch.uint8)[:10], labels[:10])
    return replace(DATA, shifts=(dark, ShiftSet("same", images, labels)))


def measured(data: ImageSet, *shift: str) -> Evaluation:
    options = EvaluationOptions(corruptions="none", shift=shift)
    return evaluate_model(Brightness(4), data, options)


def test_what_is_carried_is_measured_by_itself(tmp_path: Path) -> None:
    np.savez(tmp_path / "new.npz", images=IMAGES, labels=LABELS)
    data = carrying()
    found = measured(data, f"new={tmp_path / 'new.npz'}")
    assert list(found.shifts) == ["dark", "same", "new"]
    model = Brightness(4)
    right = (model(data.shifts[0].images / 255).argmax(1) == data.shifts[0].labels).float()
    assert found.shifts["dark"]["accuracy"] == pytest.approx(100 * float(right.mean()))
    clean = found.rows[0]
    assert found.shifts["same"] == {
        **{"accuracy": found.sa, "ece": clean.ece, "drop": 0.0, "images": 20}
    }
    for row, (name, one) in zip(found.rows[1:], found.shifts.items(), strict=True):
        assert (row.test, row.accuracy, row.ece) == (f"shift {name}", one["accuracy"], one["ece"])
        assert one["drop"] == found.sa - one["accuracy"]
    page = markdown([found.as_dict()])
    assert "## Natural shifts" in page and "| dark |" in page
    assert "Natural shifts" not in markdown([measured(DATA).as_dict()])


def bad() -> dict[str, tuple[Callable[[Path], str], str]]:
    def arrays(**more: Any) -> Callable[[Path], str]:
        def write(folder: Path) -> str:
            np.savez(folder / "a.npz", **({"images": IMAGES, "labels": LABELS} | more))
            return f"x={folder / 'a.npz'}"

        return write

    def beside_labels(labels: Any) -> Callable[[Path], str]:
        def write(folder: Path) -> str:
            np.save(folder / "labels.npy", labels)
            np.save(folder / "fog.npy", IMAGES)
            return f"x={folder}"

        return write

    def folders(*paths: str) -> Callable[[Path], str]:
        def write(folder: Path) -> str:
            for one in paths:
                (folder / one).mkdir(parents=True)
                Image.fromarray(IMAGES[0]).save(folder / one / "a.png")
            return f"x={folder}"

        return write

    names = np.array(["class0", "class1", "dog", "class3"])
    return {
        "no path": (lambda folder: "x", "NAME=PATH"),
        "no name": (lambda folder: f"={folder}", "NAME=PATH"),
        "a path for a name": (lambda folder: f"{folder}/a={folder}", "NAME=PATH"),
        "nothing": (lambda folder: f"x={folder / 'none'}", "no such file or folder"),
        "an empty folder": (lambda folder: f"x={folder}", "no image"),
        "no such file": (lambda folder: f"x={folder / 'a.npz'}", "no such file or folder"),
        "twice": (lambda folder: f"dark={folder}", "two of that name"),
        "another class": (arrays(class_names=names), "'dog' where tiny has 'class2'"),
        "fewer classes": (arrays(labels=LABELS % 2, class_names=names[:2]), "has 2 classes"),
        "more classes": (arrays(labels=LABELS + 1), "5 classes, tiny 4"),
        "other sizes": (arrays(images=IMAGES[:, :4]), r"images \[3, 4, 8\]"),
        "floats": (arrays(images=IMAGES / 2), r"\[0, 1\]"),
        "no name but blanks": (lambda folder: f" ={folder}", "NAME=PATH"),
        "a form and no path": (lambda folder: "x=npz:", "names no path"),
        "a form, and nothing there": (lambda folder: f"x=npz:{folder / 'no'}", "x=npz:.*no such"),
        "names that are one": (arrays(class_names=np.array("a")), "class_names"),
        "one label": (beside_labels(np.int64(3)), "labels"),
        "no label": (beside_labels(LABELS[:0]), "no image"),
        "a number twice": (folders("1", "01"), "two folders of one number"),
        "classes beside kinds": (folders("class1", "fog/3/class1"), "fog is none"),
        "none": (arrays(images=IMAGES[:0], labels=LABELS[:0]), "no image"),
    }


@pytest.mark.parametrize("name", bad())
def test_what_does_not_fit_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, words = bad()[name]
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        measured(carrying(), make(tmp_path))


def test_compare_has_a_column_and_paired_differences() -> None:
    def summary(sa: float, dark: float | None) -> dict[str, Any]:
        shifts = {} if dark is None else {"shifts": {"dark": {"accuracy": dark}}}
        return {"sa": sa, "ra": 50.0, "hscore": 50.0, "cost": 1.0, "seconds": 1.0, **shifts}

    runs = {
        "vanilla": {0: summary(60, 30), 1: summary(62, 32), 2: summary(61, 31)},
        "entprop": {0: summary(60, 33), 1: summary(62, 36), 2: summary(61, None)},
    }
    rows = method_rows(runs, "vanilla")
    found = rows[1].differences["shift dark"]
    assert (found.mean, found.count) == (3.5, 2)
    lines = cells(rows, "vanilla")
    assert [line["shift dark"] for line in lines] == ["31.0 ± 1.0", "34.5 ± 2.1"]
    without = {name: {0: summary(60, None)} for name in runs}
    assert "shift dark" not in cells(method_rows(without, "vanilla"), "vanilla")[0]


def test_the_command_takes_several(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).random((20, 8, 8))
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(20) % 10)
    shifts = [f"{name}=npz:{tmp_path / 'a.npz'}" for name in ("one", "two")]
    flags = ["--corruptions", "none", "--test-size", "20", "--device", "cpu"]
    assert main([str(finished), *flags, "--shift", *shifts]) == 0
    out = capsys.readouterr().out
    assert "shift one" in out and "shift two" in out and "20 clean test images" in out
    assert main([str(finished), *flags, "--shift", "one"]) == 2
    assert main([str(finished), *flags, "--shift", shifts[0], "--shift", shifts[1]]) == 2
    assert "--shift is given twice" in capsys.readouterr().err
