"""Read data sets out of one .npz file: our own arrays, Keras' and MedMNIST's.

Ours are ``images`` and ``labels``, and if wanted ``test`` (which are test images), ``groups`` (what
a split keeps together), ``shift`` (names of further test sets) and ``class_names``. Nothing pickled
is ever run.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entprop_fast.lab.data.array_set import bytes_of, data_set_of, labels_of
from entprop_fast.lab.data.image_data import ImageData, ShiftSet, is_shift_name
from entprop_fast.lab.data.subset import stratified_order

# Keys of training images and labels, and of test images and labels, where these are apart.
APART = (
    ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
    ("x_train", "y_train", "x_test", "y_test"),  # Keras
)
TEST_SHARE = 0.2  # of the images where a file does not say which are test images

_OF_ONE = ("images", "labels", "test", "groups", "shift")  # where training and test are one array
_OWN = (*_OF_ONE, "class_names")
_SEED = 0  # of that split, the same for every run
_SHOWN = 5  # names of arrays
_CHANNELS = (1, 3)

# What NumPy and zipfile raise of damaged files, of encrypted ones, and of sizes that are no sizes.
_UNREADABLE = (
    *(ValueError, OSError, EOFError, KeyError, RuntimeError, SyntaxError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)

_HEADERS: dict[Any, Callable[[Any], Any]] = {  # a third version is for records alone
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

Arrays = dict[str, NDArray[Any]]


def load_npz(name: str, path: Path) -> ImageData:
    """Load a data set from a file.

    Images are uint8, whole numbers of 0 to 255, or floating in [0, 1]: ``[N, H, W]``, or with 1 or
    3 channels last or first. Labels count from 0, ``[N]`` or ``[N, 1]``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or holds no data set.
    """
    arrays = read_arrays(path, name)
    names = class_names_of(arrays.get("class_names"), path)
    for keys in APART:
        if keys[0] in arrays:
            if lacking := [key for key in keys if key not in arrays]:
                raise ValueError(f"{path} holds {keys[0]} and lacks {', '.join(lacking)}")
            if unread := [key for key in _OF_ONE if key in arrays]:
                raise ValueError(f"{path} holds {keys[0]}, and {', '.join(unread)} besides: either")
            train = images_and_labels(arrays, keys[0], keys[1], path)
            test = images_and_labels(arrays, keys[2], keys[3], path)
            return data_set_of(name, path, train, test, names)
    images, labels = images_and_labels(arrays, "images", "labels", path)
    shift = _texts(arrays, "shift", len(labels), path)
    further = np.zeros(len(labels), np.bool_) if shift is None else shift != ""
    tested = _test_rows(arrays, labels.numpy(), further, path)
    rows, test_rows = (torch.from_numpy(one) for one in (~(tested | further), tested & ~further))
    shifts = tuple(
        ShiftSet(str(one), images[chosen], labels[chosen])
        for one in ([] if shift is None else np.unique(shift[further]))
        for chosen in (torch.from_numpy(shift == one),)
    )
    pair, test_pair = ((images[one], labels[one]) for one in (rows, test_rows))
    return data_set_of(name, path, pair, test_pair, names, shifts)


def read_arrays(path: Path, name: str) -> Arrays:
    """Read the arrays of a file whose names are known here.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or an array cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"data set {name!r}: {path}: there is no such file")
    known = {*_OWN, *(key for keys in APART for key in keys)}
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no archive of arrays")
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it is one array")
        with file:
            found: Arrays = {}
            for key in (one for one in file.files if one in known):
                if file.files.count(key) > 1:
                    raise ValueError(f"it holds {key} twice")
                _check_header(file, key)
                found[key] = file[key]
            if not found:
                names = ", ".join(file.files[:_SHOWN]) or "nothing"
                raise ValueError(f"it holds {names}; images and labels wanted")
            return found
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as an .npz file of images: {error}") from error


def _check_header(file: np.lib.npyio.NpzFile, key: str) -> None:
    """Check what an array says of itself, before memory is taken for it."""
    member = f"{key}.npy"
    with file.zip.open(member) as opened:
        try:
            read = _HEADERS[np.lib.format.read_magic(opened)]  # type: ignore[no-untyped-call]
        except (ValueError, KeyError):
            raise ValueError(f"{key} is no array of numbers or texts") from None
        shape, _, dtype = read(opened)
        there = file.zip.getinfo(member).file_size - opened.tell()
    wanted = bytes_of(key, shape, dtype)
    if wanted > there:
        raise ValueError(f"{key} says {wanted:,} bytes {shape} and has {there:,}")


def load_npy(path: Path) -> NDArray[Any]:
    """Map an array from its file; nothing pickled is ever run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no array.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a .npy file: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} holds several arrays; one was expected")
    return array


def images_and_labels(
    arrays: Mapping[str, NDArray[Any]], images: str, labels: str, path: Path
) -> tuple[Tensor, Tensor]:
    """Return images ``[N, C, H, W]``, uint8 or float32 in [0, 1], and labels int64 ``[N]``.

    Raises:
        ValueError: the arrays are missing, or of another kind; the message names them.
    """
    for key in (images, labels):
        if key not in arrays:
            found = ", ".join(arrays) or "none"
            raise ValueError(f"{path} lacks the array {key}; known arrays in it: {found}")
    made = pixels_of(arrays[images], f"{images} in {path}")
    numbers = arrays[labels]
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    named = f"{images} in {path}"
    return made, labels_of(numbers, len(made), f"{labels} in {path}", named)


def pixels_of(images: NDArray[Any], what: str) -> Tensor:
    """Return images as ``[N, C, H, W]``, uint8 or float32 in [0, 1].

    Raises:
        ValueError: another shape or dtype, or values out of range; `what` names the array.
    """
    if images.ndim == 3:
        images = images[..., None]
    elif images.ndim == 4 and images.shape[3] not in _CHANNELS and images.shape[1] in _CHANNELS:
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] not in _CHANNELS or 0 in images.shape[1:]:
        raise ValueError(f"{what} have shape {images.shape}; [N, H, W], 1 or 3 channels wanted")
    if images.dtype.kind not in "iuf":
        raise ValueError(f"{what} are {images.dtype}; uint8, or floating in [0, 1], wanted")
    low, high = (images.min(), images.max()) if images.size else (0, 0)
    floating = images.dtype.kind == "f"
    if not 0 <= low <= high <= (1 if floating else 255):  # NaN as well
        valid = "[0, 1] (divide them, or store uint8)" if floating else "0 to 255"
        raise ValueError(f"{what} hold values from {low} to {high}; {valid} wanted")
    if not floating and high == 1:
        raise ValueError(f"{what} are whole numbers of 0 and 1; 0 to 255 wanted: multiply by 255")
    made = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32 if floating else np.uint8)
    return torch.from_numpy(made)


def _test_rows(
    arrays: Arrays, labels: NDArray[np.int64], further: NDArray[np.bool_], path: Path
) -> NDArray[np.bool_]:
    """Return which are test images, as the file says, else a stratified fifth of the groups."""
    given = arrays.get("test")
    if given is not None:
        if given.shape != labels.shape or given.dtype != np.bool_:
            raise ValueError(f"test in {path} is {given.dtype} {given.shape}; bool [N] wanted")
        return given
    groups = _texts(arrays, "groups", len(labels), path)
    if groups is None:
        groups = np.arange(len(labels)).astype(np.str_)
    rows = np.flatnonzero(~further)
    names, first, counts = np.unique(groups[rows], return_index=True, return_counts=True)
    drawn = np.random.default_rng(_SEED).permutation(len(names))
    order = drawn[stratified_order(labels[rows][first][drawn])]
    before = np.cumsum(counts[order]) - counts[order]
    held = names[order[before < round(TEST_SHARE * len(rows))]]
    if len(held) == len(names) > 0:
        raise ValueError(f"groups in {path} are {len(names)}: too few to hold some out for tests")
    return np.isin(groups, held)


def _texts(arrays: Arrays, key: str, count: int, path: Path) -> NDArray[np.str_] | None:
    given = arrays.get(key)
    if given is None:
        return None
    if given.shape != (count,) or given.dtype.kind not in "Uiu":
        raise ValueError(f"{key} in {path} are {given.dtype} {given.shape}; texts [N] wanted")
    texts = given.astype(np.str_)
    for one in np.unique(texts) if key == "shift" else ():
        if one and not is_shift_name(str(one)):
            raise ValueError(
                f"{key} in {path}: {str(one)!r} is no name: letters, digits, spaces and .+- wanted"
            )
    return texts


def class_names_of(given: NDArray[Any] | None, path: Path) -> tuple[str, ...]:
    """Return the classes' names; empty where there are none.

    Raises:
        ValueError: they are no texts that tell classes apart.
    """
    if given is None:
        return ()
    names: Iterable[Any] = given.tolist() if given.ndim == 1 and given.dtype.kind == "U" else ()
    listed = tuple(map(str, names))
    proper = all(one.strip() and one.isprintable() for one in listed)
    if not listed or not proper or len(set(listed)) < len(listed):
        raise ValueError(
            f"class_names in {path} are {given.dtype} {given.shape}; texts wanted, no two the same"
        )
    return listed
