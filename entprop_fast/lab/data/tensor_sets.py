"""List the data sets that are held as whole tensors: by name, or by a prefix and a path."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from entprop_fast.lab.data import cifar, emoji_set, fashion_mnist, idx_files, npz_files
from entprop_fast.lab.data.image_data import ImageData
from entprop_fast.lab.data.official_files import SOURCES


class TensorSet(NamedTuple):
    """Say how a data set is read."""

    read: Callable[[Path | None], ImageData]  # all of it, from ``data_dir``
    found_in: Callable[[Path], list[Path]]  # folders and archives of it within a folder
    channels: int
    side: int  # height and width, in pixels
    counts: tuple[int, int, int]  # training images, test images, classes
    about: str  # where it comes from, and under which licences
    usual: Path | None = None  # folder where it is looked for if none is named


TENSORS: dict[str, TensorSet] = {
    **{
        name: TensorSet(
            partial(cifar.load_cifar, name),
            partial(cifar.found_in, name),
            3,
            cifar.SIDE,
            SOURCES[name].counts or (0, 0, 0),
            SOURCES[name].page,
        )
        for name in cifar.FORMS
    },
    fashion_mnist.NAME: TensorSet(
        fashion_mnist.load_fashion_mnist,
        fashion_mnist.found_in,
        1,
        28,
        (60_000, 10_000, 10),
        f"{fashion_mnist.PAGE}, MIT",
        fashion_mnist.DEBIAN,
    ),
    emoji_set.NAME: TensorSet(
        emoji_set.load_emoji,
        emoji_set.found_in,
        3,
        emoji_set.SIDE,
        (8_029, 2_741, 13),
        f"nine packages of npm's, {emoji_set.TERMS}: see {emoji_set.LICENCES}",
        emoji_set.USUAL,
    ),
}

# What stands before a path, as in ``idx:PATH``.
IDX, NPZ = "idx:", "npz:"
# Called with the whole name and the path.
BY_PATH: dict[str, Callable[[str, Path], ImageData]] = {
    IDX: idx_files.load_idx,
    NPZ: npz_files.load_npz,
}


def prefix_of(name: str) -> str | None:
    """Return the prefix of ``BY_PATH`` that a data set's name begins with, or None."""
    return next((one for one in BY_PATH if name.startswith(one)), None)


def is_tensor_set(name: str) -> bool:
    """Return whether the data set of this name is read as whole tensors, from files."""
    return name in TENSORS or prefix_of(name) is not None


def path_of(name: str, prefix: str, data_dir: Path | None) -> Path:
    """Return the path behind a prefix; a relative one is taken from ``data_dir``.

    Raises:
        ValueError: there is none, or it says where it is and ``data_dir`` is given too.
    """
    path = Path(name.removeprefix(prefix)).expanduser()  # no shell expands it behind "folder:"
    if name == prefix:
        raise ValueError(f"data set {name!r} names no path: {prefix}PATH")
    if data_dir is not None and path.is_absolute():
        raise ValueError(f"data set {name!r} says where it is and takes no --data-dir")
    return path if data_dir is None else data_dir / path


def load_tensors(name: str, data_dir: Path | None) -> ImageData:
    """Load a data set of which `is_tensor_set` is true, all of it."""
    prefix = prefix_of(name)
    if prefix is None:
        return TENSORS[name].read(data_dir)
    return BY_PATH[prefix](name, path_of(name, prefix, data_dir))
