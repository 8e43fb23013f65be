"""Tiny data sets in the official formats, as their authors' tools would have written them."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from entprop_fast.lab.data import official_files
from entprop_fast.lab.data.cifar import FORMS, Form

Bytes = NDArray[np.uint8]

# Images a class: of training (a multiple of CIFAR-10's five files) and of test.
TRAIN, TEST = 5, 1


def cifar_images(name: str) -> tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes]]:
    """Training and test images ``[N, 3072]`` with labels, every class as often."""
    classes = {"cifar10": 10, "cifar100": 100}[name]
    generator = np.random.default_rng(classes)

    def split(each: int) -> tuple[Bytes, Bytes]:
        labels = np.tile(np.arange(classes, dtype=np.uint8), each)
        pixels = generator.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        return pixels, generator.permutation(labels)

    return split(TRAIN), split(TEST)


def cifar_names(name: str) -> list[str]:
    return [f"kind_{i}" for i in range({"cifar10": 10, "cifar100": 100}[name])]


def cifar_files(
    name: str,
    form: Form,
    splits: tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes]] | None = None,
    protocol: int = 2,
) -> dict[str, bytes]:
    """The files of one form, by name."""
    files = {form.names: _names_file(name, form, protocol)}
    both = splits or cifar_images(name)
    for group, (pixels, labels) in zip((form.train, form.test), both, strict=True):
        parts = (np.array_split(one, len(group)) for one in (pixels, labels))
        for file, some_pixels, some_labels in zip(group, *parts, strict=True):
            files[file] = _batch(form, some_pixels, some_labels, protocol)
    return files


def _names_file(name: str, form: Form, protocol: int) -> bytes:
    if form.pickled:
        names = {form.names_key: cifar_names(name), "num_vis": 3072}
        return pickle.dumps(names, protocol)
    return ("\n".join(cifar_names(name)) + "\n\n").encode()


def _batch(form: Form, pixels: Bytes, labels: Bytes, protocol: int) -> bytes:
    if form.pickled:
        batch = {
            "data": pixels,
            form.labels_key: labels.tolist(),
            "coarse_labels": [0] * len(labels),
            "batch_label": "training batch 1 of 5",
            "filenames": [f"image_{i}.png" for i in range(len(labels))],
        }
        return pickle.dumps(batch, protocol)
    ahead = np.zeros((len(labels), form.label_bytes), dtype=np.uint8)
    ahead[:, -1] = labels
    return np.concatenate((ahead, pixels), axis=1).tobytes()


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, files: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    """Members by name; a TarInfo goes in as it is."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def make_official(patch: pytest.MonkeyPatch, name: str, archive: Path | None = None) -> None:
    """Let the tiny counts, and an archive's own size and md5, be the official ones."""
    source = official_files.SOURCES[name]
    changed: dict[str, Any] = {}
    if name in FORMS:
        classes = len(cifar_names(name))
        changed["counts"] = (TRAIN * classes, TEST * classes, classes)
    if archive is not None:
        content = archive.read_bytes()
        of_it = official_files.OfficialFile(
            archive.name, len(content), hashlib.md5(content).hexdigest()
        )
        changed["files"] = tuple(of_it if one.name == archive.name else one for one in source.files)
    patch.setitem(official_files.SOURCES, name, replace(source, **changed))
