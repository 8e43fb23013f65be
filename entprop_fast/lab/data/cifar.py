"""Load CIFAR-10 and CIFAR-100 from their official archives, pickled or binary, or unpacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from entprop_fast.lab.data.cifar_pickles import read_pickle
from entprop_fast.lab.data.file_sources import read_archive, read_folder
from entprop_fast.lab.data.image_data import ImageData
from entprop_fast.lab.data.official_files import SOURCES, check_archive, missing

SIDE = 32  # pixels
PIXELS = 3 * SIDE * SIDE

Bytes = NDArray[np.uint8]
Split = tuple[Bytes, Bytes]  # images [N, 3, 32, 32], labels [N]


@dataclass(frozen=True)
class Form:
    """One of the two ways in which a data set is published."""

    archive: str  # name of its archive
    folder: str  # that the archive holds
    train: tuple[str, ...]  # files of the training images, in order
    test: tuple[str, ...]  # likewise
    names: str  # file of the classes' names
    label_bytes: int = 0  # before each image, the last of which counts; 0 in pickles
    labels_key: str = ""  # of the labels, in a pickle
    names_key: str = ""  # of the names, in a pickle

    @property
    def pickled(self) -> bool:
        """Or binary."""
        return not self.label_bytes


FORMS: dict[str, tuple[Form, Form]] = {
    "cifar10": (
        Form(
            "cifar-10-python.tar.gz",
            "cifar-10-batches-py",
            tuple(f"data_batch_{i}" for i in range(1, 6)),
            ("test_batch",),
            "batches.meta",
            labels_key="labels",
            names_key="label_names",
        ),
        Form(
            "cifar-10-binary.tar.gz",
            "cifar-10-batches-bin",
            tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            ("test_batch.bin",),
            "batches.meta.txt",
            label_bytes=1,
        ),
    ),
    "cifar100": (
        Form(
            "cifar-100-python.tar.gz",
            "cifar-100-python",
            ("train",),
            ("test",),
            "meta",
            labels_key="fine_labels",
            names_key="fine_label_names",
        ),
        Form(
            "cifar-100-binary.tar.gz",
            "cifar-100-binary",
            ("train.bin",),
            ("test.bin",),
            "fine_label_names.txt",
            label_bytes=2,
        ),
    ),
}


def load_cifar(name: str, data_dir: Path | None) -> ImageData:
    """Load the official split, uint8 ``[N, 3, 32, 32]``.

    What is unpacked goes before an archive, the pickled form before the binary one.
    """
    if data_dir is None:
        raise missing(name, None)
    form, where, files = _read(name, data_dir)
    counts = SOURCES[name].counts
    assert counts is not None
    num_train, num_test, num_classes = counts
    train, test = (
        _split(form, where, [files[one] for one in group], group)
        for group in (form.train, form.test)
    )
    for what, (_, labels), count in (("training", train, num_train), ("test", test, num_test)):
        _check_labels(where, what, labels, count, num_classes)
    names = _class_names(form, where, files[form.names], num_classes)
    return ImageData(
        name,
        torch.from_numpy(train[0]),
        torch.from_numpy(train[1].astype(np.int64)),
        torch.from_numpy(test[0]),
        torch.from_numpy(test[1].astype(np.int64)),
        num_classes,
        class_names=names,
        official_corruptions=f"{name}-c",
    )


def found_in(name: str, data_dir: Path) -> list[Path]:
    """List the folders and archives of the data set in ``data_dir``, in the order of reading."""
    data_dir = data_dir.absolute()
    folders = [data_dir / form.folder for form in FORMS[name]]
    if any(data_dir.name == folder.name for folder in folders):
        folders.insert(0, data_dir)
    archives = [data_dir / form.archive for form in FORMS[name]]
    return [path for path in folders if path.is_dir()] + [
        path for path in archives if path.is_file()
    ]


def _read(name: str, data_dir: Path) -> tuple[Form, Path, dict[str, bytes]]:
    for path in found_in(name, data_dir):
        if path.is_dir():
            form = next(form for form in FORMS[name] if form.folder == path.name)
            return form, path, read_folder(path, _limits(name, form))
        form = next(form for form in FORMS[name] if form.archive == path.name)
        check_archive(path, next(f for f in SOURCES[name].files if f.name == path.name))
        return form, path, read_archive(path, form.folder, _limits(name, form))
    raise missing(name, data_dir)


def _limits(name: str, form: Form) -> dict[str, int]:
    num_train, num_test, _ = SOURCES[name].counts or (0, 0, 0)
    # Beside an image a pickle holds a file name and labels, and an old protocol takes two bytes for
    # one above 127.
    each = 2 * PIXELS + 256 if form.pickled else PIXELS + form.label_bytes
    spare = 4096 if form.pickled else 0  # a pickle's own words
    sizes = {
        **{file: num_train // len(form.train) for file in form.train},
        **{file: num_test // len(form.test) for file in form.test},
    }
    return {file: n * each + spare for file, n in sizes.items()} | {form.names: 1 << 16}


def _split(form: Form, where: Path, contents: Sequence[bytes], names: Sequence[str]) -> Split:
    read: Callable[[Form, bytes, str], Split] = _pickled if form.pickled else _binary
    parts = [
        read(form, content, f"{where}: {name}")
        for content, name in zip(contents, names, strict=True)
    ]
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _binary(form: Form, content: bytes, where: str) -> Split:
    """Split records of label bytes and 3072 pixel bytes, channel by channel."""
    ahead = form.label_bytes
    if len(content) % (ahead + PIXELS):
        raise ValueError(
            f"{where} has {len(content):,} bytes, no multiple of {ahead + PIXELS} (an image and "
            "its label): it is cut off, or of another data set"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, ahead + PIXELS)
    return records[:, ahead:].reshape(-1, 3, 32, 32), records[:, ahead - 1]


def _pickled(form: Form, content: bytes, where: str) -> Split:
    batch = read_pickle(content, where)
    images, labels = batch.get("data"), batch.get(form.labels_key)
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != PIXELS:
        raise ValueError(f"{where} holds no images [N, {PIXELS}] under 'data'")
    if not isinstance(labels, list) or not all(_is_byte(label) for label in labels):
        raise ValueError(f"{where} holds no list of labels under {form.labels_key!r}")
    if len(labels) != len(images):
        raise ValueError(f"{where} holds {len(images)} images and {len(labels)} labels")
    return images.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.uint8)


def _is_byte(label: Any) -> bool:
    return type(label) is int and 0 <= label < 256


def _check_labels(where: Path, what: str, labels: Bytes, count: int, num_classes: int) -> None:
    if len(labels) != count:
        raise ValueError(f"{where} holds {len(labels):,} {what} images, the official set {count:,}")
    of_class = np.bincount(labels, minlength=num_classes)
    if len(of_class) > num_classes:
        raise ValueError(
            f"{where}: a {what} label is {labels.max()}, the {num_classes} classes are 0 to "
            f"{num_classes - 1}"
        )
    wrong = np.flatnonzero(of_class != count // num_classes)
    if len(wrong):
        raise ValueError(
            f"{where}: class {wrong[0]} has {of_class[wrong[0]]} {what} images, the official set "
            f"{count // num_classes} of each class"
        )


def _class_names(form: Form, where: Path, content: bytes, num_classes: int) -> tuple[str, ...]:
    if form.pickled:
        listed = read_pickle(content, f"{where}: {form.names}").get(form.names_key)
        listed = listed if isinstance(listed, list) else []
        names = [one.decode() if isinstance(one, bytes) else str(one) for one in listed]
    else:
        names = content.decode("utf-8", "replace").split()
    if len(names) != num_classes:
        raise ValueError(
            f"{where}: {form.names} names {len(names)} classes, the data set has {num_classes}"
        )
    return tuple(names)
