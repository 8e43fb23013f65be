"""IDX files, gzip or not, are read to the last pixel; what is none of them is refused by name."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from entprop_fast.lab.cli.data import main
from entprop_fast.lab.data import load
from entprop_fast.lab.data.fashion_mnist import CLASSES
from entprop_fast.lab.data.idx_files import find_idx, read_idx
from tests.tiny_data.idx import NAMES, idx_bytes, tiny, tiny_fashion, write


@pytest.mark.parametrize("zipped", [True, False])
def test_images_and_labels_are_the_files(tmp_path: Path, zipped: bool) -> None:
    parts = tiny(5, 3)
    write(tmp_path / "set", parts, zipped=zipped)
    data = load(f"idx:{tmp_path / 'set'}")
    assert data.image_shape == (1, 5, 6) and data.num_classes == 3
    read = (data.train_images[:, 0], data.train_labels, data.test_images[:, 0], data.test_labels)  # type: ignore[union-attr]
    for values, wanted in zip(read, parts, strict=True):
        assert np.array_equal(values.numpy(), wanted)
    assert read[0].dtype == torch.uint8 and read[1].dtype == torch.int64
    assert load("idx:set", data_dir=tmp_path, train_size=6, seed=3).num_train == 6


def test_other_names(tmp_path: Path) -> None:
    """KMNIST's, EMNIST's and Kaggle's: ``test-`` for ``t10k-``, a prefix, a point for the dash."""
    parts = tiny(4, 4)
    write(tmp_path, parts)
    (tmp_path / f"{NAMES[2]}.gz").rename(tmp_path / "test-images-idx3-ubyte.gz")
    (tmp_path / f"{NAMES[0]}.gz").rename(tmp_path / "train-images.idx3-ubyte.gz")
    assert find_idx(tmp_path) is not None
    both = tmp_path / "both"
    for start in ("one-", "two-"):
        write(both, parts, start=start)
    with pytest.raises(ValueError, match=r"2 sets.*one.*two"):
        load(f"idx:{both}")
    assert load(f"idx:{both / 'two'}").num_test == len(parts[3])
    (both / f"two-{NAMES[3]}.gz").unlink()
    with pytest.raises(ValueError, match="lacks two-t10k or test-labels"):
        load(f"idx:{both / 'two'}")
    with pytest.raises(FileNotFoundError, match="IDX"):
        load(f"idx:{tmp_path / 'none'}")
    with pytest.raises(ValueError, match="no path"):
        load("idx:")


def test_emnist_is_turned_and_its_letters_count_from_0(tmp_path: Path) -> None:
    images, labels, test, test_labels = tiny(5, 3)
    write(tmp_path, (images, labels + 1, test, test_labels + 1), start="emnist-letters-")
    mapping = "".join(f"{number} {64 + number} {96 + number}\n" for number in (1, 2, 3))
    (tmp_path / "emnist-letters-mapping.txt").write_text(mapping)
    data = load(f"idx:{tmp_path / 'emnist-letters'}")
    assert data.image_shape == (1, 6, 5) and data.class_names == ("A", "B", "C")
    assert np.array_equal(data.train_images[:, 0].numpy(), images.transpose(0, 2, 1))  # type: ignore[union-attr]
    assert np.array_equal(data.test_labels.numpy(), test_labels)
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65\n2 66\n3 66\n")
    with pytest.raises(ValueError, match="mapping"):
        load(f"idx:{tmp_path / 'emnist-letters'}")
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65\n2\n")
    with pytest.raises(ValueError, match="mapping"):
        load(f"idx:{tmp_path / 'emnist-letters'}")


def bad_files() -> dict[str, bytes]:
    """What is in place of the training images, and no such file."""
    good = idx_bytes(tiny(5, 3)[0])
    huge = struct.pack(">BBBBIII", 0, 0, 8, 3, 2**31, 2**31, 2**31)
    return {
        "empty": b"",
        "cut off": good[:-1],
        "too long": good + b"\0",
        "a cut header": good[:9],
        "another magic": b"\1" + good[1:],
        "another type": good[:2] + b"\x0d" + good[3:],
        "another dimension": good[:3] + b"\1" + good[4:],
        "more than there is": huge,
        "cut gzip": gzip.compress(good)[:-9],
        "damaged gzip": gzip.compress(good)[:20] + b"\0" * 20,
        "only the mark of gzip": b"\x1f\x8b",
        "fewer": idx_bytes(tiny(5, 3)[0][:-1]),
        "16 bits": idx_bytes(tiny(5, 3)[0].astype(np.int16)),
        "none": idx_bytes(tiny(5, 3)[0][:0]),
    }


@pytest.mark.parametrize("name", bad_files())
def test_files_that_are_none(tmp_path: Path, name: str) -> None:
    write(tmp_path, tiny(5, 3), zipped=False)
    (tmp_path / NAMES[0]).write_bytes(bad_files()[name])
    with pytest.raises(ValueError, match="train-images"):
        load(f"idx:{tmp_path}")


def test_no_more_is_unpacked_than_the_header_says(tmp_path: Path) -> None:
    write(tmp_path, tiny(5, 3), zipped=False)
    bomb = gzip.compress(idx_bytes(tiny(5, 3)[0]) + bytes(2**25))
    (tmp_path / NAMES[0]).write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="holds more"):
            load(f"idx:{tmp_path}")
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.arange(18, dtype=np.int32) % 3 - 1, "labels are -1"),
        (np.zeros(18, np.uint8), "no training image of 2"),
        ((np.arange(18) % 3 + 1).astype(np.uint8), "count from 0"),
        (np.full(18, 20_000, np.int32), "labels are"),
    ],
)
def test_labels_that_cannot_be(tmp_path: Path, labels: NDArray[Any], words: str) -> None:
    images, _, test, test_labels = tiny(5, 3)
    write(tmp_path, (images, labels, test, test_labels))
    with pytest.raises(ValueError, match=words):
        load(f"idx:{tmp_path}")


def test_whole_numbers_of_other_widths(tmp_path: Path) -> None:
    for dtype in (np.int8, np.int16, np.int32):
        values = np.array([3, -2, 100], dtype)
        (tmp_path / "labels").write_bytes(idx_bytes(values))
        assert read_idx(tmp_path / "labels", 1).tolist() == [3, -2, 100]


def test_fashion_mnist_is_found_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        load("fashion_mnist", data_dir=tmp_path)
    files = tiny_fashion(tmp_path / "FashionMNIST" / "raw", monkeypatch)
    monkeypatch.setattr("entprop_fast.lab.data.fashion_mnist.DEBIAN", tmp_path)
    data = load("fashion_mnist")  # Debian's folder, without being told
    assert data.class_names == CLASSES and data.image_shape == (1, 28, 28)
    assert torch.equal(data.train_images, load("fashion_mnist", data_dir=tmp_path).train_images)
    content = gzip.decompress(files.test_labels.read_bytes())
    files.test_labels.write_bytes(content)  # unpacked bytes count, not the file's
    load("fashion_mnist", data_dir=tmp_path)
    files.test_labels.write_bytes(content[:-1] + b"\0" if content[-1] else content[:-1] + b"\1")
    with pytest.raises(ValueError, match=r"t10k-labels.*md5"):
        load("fashion_mnist", data_dir=tmp_path)
    with pytest.raises(ValueError, match="image_size"):
        load("fashion_mnist", data_dir=tmp_path, image_size=32)


def test_data_check_knows_it_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MNIST's files are called alike."""
    tiny_fashion(tmp_path / "fashion-mnist", monkeypatch)
    assert main(["check", str(tmp_path)]) == 0
    assert "fashion_mnist, in" in (said := capsys.readouterr().out) and "28x28, grey" in said
    (tmp_path / "fashion-mnist" / f"{NAMES[1]}.gz").unlink()
    assert main(["check", str(tmp_path)]) == 1
    assert "lacks train-labels" in capsys.readouterr().out
    write(tmp_path / "mnist", tiny(5, 3))
    assert main(["check", str(tmp_path / "mnist")]) == 2
    assert main(["check", f"idx:{tmp_path / 'mnist'}"]) == 0
