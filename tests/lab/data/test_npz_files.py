"""Arrays in an .npz file become images and labels; what is out of range or pickled is refused."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from entprop_fast.lab.data import ImageData, load

Arrays = dict[str, NDArray[Any]]
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (40, 4, 5, 3), np.uint8)
LABELS = np.arange(40) % 4
GOOD: Arrays = {"images": IMAGES, "labels": LABELS}


def loaded(folder: Path, arrays: Arrays) -> ImageData:
    np.savez_compressed(folder / "set.npz", **arrays)  # type: ignore[arg-type]
    data = load("npz:set.npz", data_dir=folder)
    assert isinstance(data, ImageData)
    return data


def test_a_mask_says_what_is_tested(tmp_path: Path) -> None:
    test = GENERATOR.random(40) < 0.3
    data = loaded(tmp_path, {**GOOD, "test": test, "class_names": np.array(list("abcd"))})
    assert np.array_equal(data.test_images.permute(0, 2, 3, 1).numpy(), IMAGES[test])
    assert np.array_equal(data.train_images.permute(0, 2, 3, 1).numpy(), IMAGES[~test])
    assert np.array_equal(data.train_labels.numpy(), LABELS[~test])
    assert data.class_names == ("a", "b", "c", "d") and data.name == "npz:set.npz"


def test_groups_stay_together_and_every_class_is_tested(tmp_path: Path) -> None:
    groups = np.array([f"{row % 4}-{row // 8}" for row in range(40)])  # two images each
    images = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None], (40, 3, 3))
    data = loaded(tmp_path, {"images": images, "labels": LABELS, "groups": groups})
    tested, trained = ({*groups[one[:, 0, 0, 0]]} for one in (data.test_images, data.train_images))
    assert not tested & trained and data.num_test == 8
    assert set(data.test_labels.tolist()) == {0, 1, 2, 3}
    alone = loaded(tmp_path, {"images": images, "labels": LABELS})
    assert torch.bincount(alone.test_labels).tolist() == [2, 2, 2, 2]  # a fifth of each


def test_further_sets_are_in_neither_split(tmp_path: Path) -> None:
    shift = np.array(["", "x", "y", ""] * 10)
    test = np.arange(40) >= 20
    data = loaded(tmp_path, {**GOOD, "labels": LABELS // 2, "test": test, "shift": shift})
    assert [one.name for one in data.shifts] == ["x", "y"]
    assert np.array_equal(data.shifts[1].images.permute(0, 2, 3, 1).numpy(), IMAGES[shift == "y"])
    assert (data.num_train, data.num_test) == (10, 10)


@pytest.mark.parametrize("keys", ["train_{}s test_{}s image label", "x_train x_test y"])
def test_kerass_and_medmnists(tmp_path: Path, keys: str) -> None:
    medical = "{}" in keys
    names = (
        ("train_images", "train_labels", "test_images", "test_labels")
        if medical
        else ("x_train", "y_train", "x_test", "y_test")
    )
    labels = LABELS[:, None] if medical else LABELS.astype(np.uint8)
    grey = IMAGES[..., 0]
    parts = (grey[:30], labels[:30], grey[30:], labels[30:])
    arrays = dict(zip(names, parts, strict=True))
    if medical:
        arrays |= {"val_images": grey[:1], "val_labels": labels[:1]}
    data = loaded(tmp_path, arrays)
    assert data.image_shape == (1, 4, 5) and (data.num_train, data.num_test) == (30, 10)
    assert data.test_labels.tolist() == LABELS[30:].tolist()
    del arrays[names[3]]
    with pytest.raises(ValueError, match=names[3]):
        loaded(tmp_path, arrays)


def test_forms_of_images(tmp_path: Path) -> None:
    wanted = loaded(tmp_path, GOOD).train_images
    for same in (IMAGES.transpose(0, 3, 1, 2), IMAGES.astype(np.int64)):
        assert torch.equal(loaded(tmp_path, {**GOOD, "images": same}).train_images, wanted)
    floating = loaded(tmp_path, {**GOOD, "images": IMAGES / 255}).train_images
    assert floating.dtype == torch.float32
    torch.testing.assert_close(floating, wanted / 255)


def bad() -> dict[str, tuple[Arrays, str]]:
    half = (IMAGES / 255).astype(np.float32)
    nan = half.copy()
    nan[3] = np.nan
    return {
        "no labels": ({"images": IMAGES}, "lacks the array labels"),
        "nothing": ({"other": IMAGES}, "holds other; images and labels wanted"),
        "both forms": (
            {
                **{
                    f"{x}_{one}": GOOD[key]
                    for x, key in (("x", "images"), ("y", "labels"))
                    for one in ("train", "test")
                },
                "test": LABELS > 2,
            },
            "test besides",
        ),
        "a shift's name": (
            {**GOOD, "shift": np.array(["a\n|b"] * 10 + [""] * 30)},
            "shift .*is no name",
        ),
        "objects": ({**GOOD, "images": np.array([None] * 40)}, "npz"),
        "object labels": ({**GOOD, "labels": np.array([{}] * 40)}, "npz"),
        "floats to 255": ({**GOOD, "images": half * 255}, r"\[0, 1\]"),
        "negative floats": ({**GOOD, "images": half - 1}, r"\[0, 1\]"),
        "nan": ({**GOOD, "images": nan}, "nan"),
        "wide": ({**GOOD, "images": IMAGES.astype(np.int16) * 2}, "0 to 255"),
        "bits": ({**GOOD, "images": (IMAGES > 9).astype(np.uint8)}, "multiply by 255"),
        "booleans": ({**GOOD, "images": IMAGES > 9}, "bool"),
        "texts": ({**GOOD, "images": IMAGES.astype("U4")}, "<U4"),
        "flat": ({**GOOD, "images": IMAGES.reshape(40, -1)}, "shape"),
        "two channels": ({**GOOD, "images": IMAGES[..., :2]}, "shape"),
        "no pixels": ({**GOOD, "images": IMAGES[:, :0]}, "shape"),
        "fewer labels": ({**GOOD, "labels": LABELS[:-1]}, "39 labels"),
        "float labels": ({**GOOD, "labels": LABELS / 1}, "labels .*float64"),
        "several labels": ({**GOOD, "labels": np.stack([LABELS] * 2, 1)}, "one class an image"),
        "negative": ({**GOOD, "labels": LABELS - 1}, "labels .*-1"),
        "too many classes": ({**GOOD, "labels": LABELS * 9999}, "labels"),
        "from one": ({**GOOD, "labels": LABELS + 1}, "count from 0"),
        "one class": ({**GOOD, "labels": LABELS * 0}, "every label is the first class"),
        "few names": ({**GOOD, "class_names": np.array(["a", "b"])}, "class_names"),
        "same names": ({**GOOD, "class_names": np.array(list("aabc"))}, "class_names"),
        "a nameless class": (
            {**GOOD, "class_names": np.array(["a", "b", " ", "c"])},
            "class_names",
        ),
        "a class of two lines": (
            {**GOOD, "class_names": np.array(["a", "b", "c\n", "d"])},
            "names",
        ),
        "one group": ({**GOOD, "groups": LABELS * 0}, "groups .* are 1"),
        "a shift of two lines": (
            {**GOOD, "shift": np.array(["", "a\nb"] * 20)},
            "shift .*is no name",
        ),
        "two forms": (
            {**GOOD, "x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS},
            "holds x_train, and images, labels besides",
        ),
        "no mask": ({**GOOD, "test": LABELS}, "test .*bool"),
        "short mask": ({**GOOD, "test": LABELS[1:] > 2}, "test .*bool"),
        "all tested": ({**GOOD, "test": LABELS >= 0}, "no training image"),
        "none tested": ({**GOOD, "test": LABELS < 0}, "no test image"),
        "an untrained class": ({**GOOD, "test": LABELS == 3}, "no training image of 1"),
        "short groups": ({**GOOD, "groups": np.array(["a"])}, "groups"),
        "wrong shift": ({**GOOD, "shift": LABELS / 2}, "shift"),
    }


@pytest.mark.parametrize("name", bad())
def test_what_is_no_data_set_is_refused(tmp_path: Path, name: str) -> None:
    arrays, words = bad()[name]
    with pytest.raises(ValueError, match=words):
        loaded(tmp_path, arrays)


@pytest.mark.parametrize("words", ["no array", "images twice"])
def test_members_that_are_none(tmp_path: Path, words: str) -> None:
    np.savez(tmp_path / "set.npz", labels=LABELS)
    np.save(tmp_path / "images.npy", IMAGES)
    with zipfile.ZipFile(tmp_path / "set.npz", "a") as file:
        if words == "no array":
            file.writestr("images.npy", b"text")
        else:
            file.write(tmp_path / "images.npy", "images.npy")
            file.write(tmp_path / "images.npy", "images")  # NumPy calls both images
    with pytest.raises(ValueError, match=words):
        load("npz:set.npz", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2**20, 64, 64, 3), r"images says 12,884,901,888 bytes"),
        ((41, 4, 5, 3), "2,460 bytes .* and has 2,400"),
    ],
)
def test_a_header_is_not_believed(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    """What it says is compared with a bound and with what is there before memory is taken."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.savez(tmp_path / "set.npz", labels=LABELS)
    with zipfile.ZipFile(tmp_path / "set.npz", "a") as file, file.open("images.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)  # type: ignore[no-untyped-call]
        member.write(IMAGES.tobytes())
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=words):
            load("npz:set.npz", data_dir=tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_files_that_are_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", **GOOD)  # type: ignore[arg-type]
    good = (tmp_path / "good.npz").read_bytes()
    np.save(tmp_path / "one.npy", IMAGES)
    for content in (
        b"",
        b"PK",
        good[:-30],
        good[: len(good) // 2],
        (tmp_path / "one.npy").read_bytes(),
    ):
        (tmp_path / "set.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"set\.npz"):
            load(f"npz:{tmp_path / 'set.npz'}")
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as file:
        for member in ("images.npy", "labels.npy"):
            file.writestr(member, b"no array")
    with pytest.raises(ValueError, match="is no array"):
        load(f"npz:{tmp_path / 'set.npz'}")
    damaged = bytearray(good)
    damaged[200:260] = b"\0" * 60
    (tmp_path / "set.npz").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"set\.npz"):
        load(f"npz:{tmp_path / 'set.npz'}")
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        load(f"npz:{tmp_path / 'none.npz'}")
