"""Check CIFAR in both forms: right tensors; nothing in a file is run, written or just believed."""

from __future__ import annotations

import os
import pickle
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from entprop_fast.lab.data import load
from entprop_fast.lab.data.cifar import FORMS, Form
from entprop_fast.lab.data.cifar_pickles import read_pickle
from entprop_fast.lab.data.file_sources import inside, read_archive
from tests.tiny_data.archives import (
    cifar_files,
    cifar_images,
    cifar_names,
    make_official,
    write_folder,
    write_tar,
)

ALL_FORMS = [pytest.param(n, f, id=f.folder) for n, forms in FORMS.items() for f in forms]
PICKLED, BINARY = FORMS["cifar10"]
Refusal = tuple[str, Form, dict[str, bytes]]  # message, and the files that are other ones


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let tiny counts, and an archive's own size and md5, be the official ones."""
    return partial(make_official, monkeypatch)


def refused(message: str, data_dir: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load("cifar10", data_dir=data_dir)


def packed(name: str, form: Form, data_dir: Path, files: dict[str, bytes] | None = None) -> Path:
    content = cifar_files(name, form) if files is None else files
    return write_tar(
        data_dir / form.archive, {f"{form.folder}/{name}": one for name, one in content.items()}
    )


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize(("name", "form"), ALL_FORMS)
def test_the_tensors_are_those_that_were_written(
    name: Any, form: Form, unpacked: bool, tmp_path: Path, official: Callable[..., None]
) -> None:
    if unpacked:
        write_folder(tmp_path / form.folder, cifar_files(name, form))
        official(name)
    else:
        official(name, packed(name, form, tmp_path))
    data = load(name, data_dir=tmp_path)
    for (pixels, labels), images, found in zip(
        cifar_images(name),
        (data.train_images, data.test_images),
        (data.train_labels, data.test_labels),
        strict=True,
    ):
        assert torch.equal(images, torch.from_numpy(pixels.reshape(-1, 3, 32, 32)))
        assert (images.dtype, found.dtype) == (torch.uint8, torch.int64)
        assert found.tolist() == labels.tolist()
    assert data.class_names == tuple(cifar_names(name))
    assert data.official_corruptions == f"{name}-c"
    assert (data.num_train, data.image_shape) == (len(data.train_labels), (3, 32, 32))
    batches = (torch.cat(parts) for parts in zip(*data.test_batches(7), strict=True))
    for made, wanted in zip(
        batches, (data.test_images.float() / 255, data.test_labels), strict=True
    ):
        assert torch.equal(made, wanted)
    if unpacked:  # the folder itself may be named as well
        again = load(name, data_dir=tmp_path / form.folder)
        assert torch.equal(again.test_images, data.test_images)


@pytest.mark.parametrize("name", FORMS)
def test_torchvision_reads_the_same(
    name: Any, tmp_path: Path, official: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMS[name][0]
    write_folder(tmp_path / form.folder, cifar_files(name, form))
    official(name)
    reader = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    monkeypatch.setattr(reader, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = load(name, data_dir=tmp_path)
    for train, images, labels in (
        (True, data.train_images, data.train_labels),
        (False, data.test_images, data.test_labels),
    ):
        theirs = reader(tmp_path, train=train)
        assert np.array_equal(theirs.data, images.permute(0, 2, 3, 1).numpy())
        assert theirs.targets == labels.tolist()
        assert tuple(theirs.classes) == data.class_names


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_of_any_writer(
    protocol: int, tmp_path: Path, official: Callable[..., None]
) -> None:
    write_folder(tmp_path / PICKLED.folder, cifar_files("cifar10", PICKLED, protocol=protocol))
    official("cifar10")
    (pixels, _), _ = cifar_images("cifar10")
    data = load("cifar10", data_dir=tmp_path)
    assert torch.equal(data.train_images.flatten(1), torch.from_numpy(pixels))


# A batch as Python 2 and NumPy 1 wrote the official ones: the bytes of cPickle's protocol 2.
PYTHON_2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04"
    b"K\x00\x85q\x05U\x01bq\x06\x87Rq\x07(K\x01K\x01K\x03\x86q\x08cnumpy\ndtype\nq\tU\x02u1q\nK\x00"
    b"K\x01\x87Rq\x0b(K\x03U\x01|q\x0cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03"
    b"\x07\xff\x00tbU\x06labelsq\r]q\x0e(K\x06K\x09eu."
)


def test_a_pickle_of_python_2() -> None:
    found = read_pickle(PYTHON_2, "batch")
    assert found["data"].tolist() == [[7, 255, 0]] and found["labels"] == [6, 9]


class Runs:
    """What a pickle that runs a command looks like."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "named"), [(os.system, "posix.system"), (eval, "eval"), (getattr, "getattr")]
)
def test_a_pickle_that_would_run_code_is_refused_by_name(
    function: Any, named: str, protocol: int, tmp_path: Path, official: Callable[..., None]
) -> None:
    mark = tmp_path / "ran"
    argument = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    batch = pickle.dumps({"data": Runs(function, argument)}, protocol)
    write_folder(
        tmp_path / PICKLED.folder, cifar_files("cifar10", PICKLED) | {"data_batch_3": batch}
    )
    official("cifar10")
    refused(rf"data_batch_3 is refused: it asks for .*{named}", tmp_path)
    assert not mark.exists()


def of_test_images(message: str, change: Callable[[Any, Any], tuple[Any, Any]]) -> list[Refusal]:
    """Both forms with other test images."""
    train, test = cifar_images("cifar10")
    return [
        (message, form, cifar_files("cifar10", form, (train, change(*test))))
        for form in FORMS["cifar10"]
    ]


def beyond(labels: Any) -> Any:
    return np.concatenate((labels[:-1], [np.uint8(10)]))


def pickled(reason: str, content: bytes) -> Refusal:
    return f"test_batch.*({reason})", PICKLED, {"test_batch": content}


BATCH = cifar_files("cifar10", BINARY)["data_batch_2.bin"]
DAMAGED: list[Refusal] = [
    *of_test_images("holds 9 test images, the official set 10", lambda x, y: (x[1:], y[1:])),
    *of_test_images(
        "class 3 has 0 test images, the official set 1 of each",
        lambda x, y: (x, np.where(y == 3, 4, y).astype(np.uint8)),
    ),
    *of_test_images("a test label is 10, the 10 classes are 0 to 9", lambda x, y: (x, beyond(y))),
    ("data_batch_2.bin has 30,729 bytes", BINARY, {"data_batch_2.bin": BATCH[:-1]}),
    ("30,731 bytes, at most 30,730", BINARY, {"data_batch_2.bin": BATCH + b"x"}),
    ("holds 40 training", BINARY, {"data_batch_2.bin": b""}),
    ("names 2 classes, the data set has 10", BINARY, {BINARY.names: b"one two"}),
    pickled("'O8'", pickle.dumps({"data": np.array([os.getpid], dtype=object)}, 2)),
    pickled("'f8'", pickle.dumps({"data": np.zeros((2, 3072))}, 2)),
    pickled("list, a dictionary", pickle.dumps([1, 2])),
    pickled("truncated|ran out|exhausted", pickle.dumps({"data": b"x" * 100})[:-40]),
    pickled("reshape", PYTHON_2.replace(b"K\x01K\x03\x86", b"K\x09K\x03\x86")),
    pickled("_Ndarray|values", b"\x80\x02}U\x04datacnumpy\nndarray\n)Rs."),
    pickled("no images", pickle.dumps({"data": b"none", "labels": []})),
    pickled("persistent", b"\x80\x02U\x01xQ."),
    pickled("extension|registered", b"\x80\x02\x82\x01."),
]


@pytest.mark.parametrize(("message", "form", "changed"), DAMAGED)
def test_damaged_folders_are_refused(
    message: str,
    form: Form,
    changed: dict[str, bytes],
    tmp_path: Path,
    official: Callable[..., None],
) -> None:
    official("cifar10")
    folder = write_folder(tmp_path / form.folder, cifar_files("cifar10", form) | changed)
    refused(message, tmp_path)
    (folder / form.train[0]).unlink()
    refused("lacks data_batch_1", tmp_path)


def test_archives_are_the_official_ones_bit_for_bit(
    tmp_path: Path, official: Callable[..., None]
) -> None:
    archive = packed("cifar10", BINARY, tmp_path)
    official("cifar10", archive)
    content = archive.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for changed, message in (
        (content[: len(content) // 2], rf"bytes, the official .* {len(content):,}"),
        (flipped, r"has md5 \w{32}, the official file \w{32}"),
    ):
        archive.write_bytes(changed)
        refused(message, tmp_path)
    archive.write_bytes(content[: len(content) // 2])
    official("cifar10", archive)  # cut off before it was summed
    refused("cannot be read as an archive", tmp_path)


def link(name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member


@pytest.mark.parametrize(
    ("member", "content", "reason"),
    [
        ("../evil", b"x", r"'../evil' lies outside of it"),
        ("cifar-10-batches-bin/../../evil", b"x", "lies outside of it"),
        ("/tmp/entprop-evil", b"x", "lies outside of it"),
        ("cifar-10-batches-bin/l", link("cifar-10-batches-bin/l", "/etc/passwd"), "is a link"),
    ],
)
def test_archives_that_reach_outside_are_refused(
    member: str,
    content: bytes | tarfile.TarInfo,
    reason: str,
    tmp_path: Path,
    official: Callable[..., None],
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    files = {f"{BINARY.folder}/{n}": one for n, one in cifar_files("cifar10", BINARY).items()}
    official("cifar10", write_tar(data_dir / BINARY.archive, {member: content, **files}))
    refused(reason, data_dir)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", BINARY.archive]


def test_a_member_larger_than_expected_is_not_unpacked(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "bomb.tar.gz", {"a/b": bytes(10**6)})
    with pytest.raises(ValueError, match="has 1,000,000 bytes, at most 1,000 were expected"):
        read_archive(archive, "a", {"b": 1000})
    with pytest.raises(ValueError, match="lacks a/c"):
        read_archive(archive, "a", {"c": 10**6})


def test_inside_and_outside() -> None:
    assert all(map(inside, ["a/b.jpg", "a", "a b/..c", "./a"]))
    assert not any(map(inside, ["", "..", "a/../b", "/a", "..\\a", "\\\\host\\a"]))


def test_train_size_is_a_stratified_subset_by_seed(
    tmp_path: Path, official: Callable[..., None]
) -> None:
    write_folder(tmp_path / BINARY.folder, cifar_files("cifar10", BINARY))
    official("cifar10")
    whole = [i.numpy().tobytes() for i in load("cifar10", data_dir=tmp_path).train_images]

    def kept(size: int, seed: int) -> set[bytes]:
        data = load("cifar10", data_dir=tmp_path, train_size=size, seed=seed)
        assert data.train_labels.bincount().tolist() == [size // 10] * 10
        images = [image.numpy().tobytes() for image in data.train_images]
        assert images == [image for image in whole if image in set(images)]  # in their order
        return set(images)

    assert kept(10, 0) < kept(30, 0) < kept(50, 0)
    assert kept(30, 0) != kept(30, 1)
    with pytest.raises(ValueError, match=r"train_size = 9 must be between 10 .* and 50"):
        load("cifar10", data_dir=tmp_path, train_size=9)
