"""Read the published corrupted sets as they are downloaded: CIFAR-10-C, CIFAR-100-C, ImageNet-C.

The same readers take what `entprop_fast.corrupt` wrote, which carries a marker: it is reported as
generated, whatever the folder is called.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS, EXTRA_KINDS
from entprop_fast.lab.corruptions.set_marker import read_marker, source_of
from entprop_fast.lab.corruptions.suites import Place, Sample, Suite
from entprop_fast.lab.data import FileList, ImageFiles, ImageSet
from entprop_fast.lab.data.class_folders import class_folders, image_batches, in_order
from entprop_fast.lab.data.image_values import to_float
from entprop_fast.lab.data.npz_files import load_npy
from entprop_fast.lab.data.stray_files import LeftOut

_Samples = Callable[[Sequence[Place]], Iterator[Sample]]

# Data set's own word for its published set -> title, and the folder's usual names.
OFFICIAL = {
    "cifar10-c": ("CIFAR-10-C", ("CIFAR-10-C", "cifar-10-c", "cifar10-c")),
    "cifar100-c": ("CIFAR-100-C", ("CIFAR-100-C", "cifar-100-c", "cifar100-c")),
    "imagenet-c": ("ImageNet-C", ("imagenet-c", "ImageNet-C", "imagenet_c")),
}

JPEG_QUALITY = 85  # of the published ImageNet-C, and of folders that `entprop_fast.corrupt` writes


def find(name: str, folder: Path | None) -> Path | None:
    """Find the folder of the published set ``name`` within ``folder``, or None."""
    if folder is None:
        return None
    return next((folder / one for one in OFFICIAL[name][1] if (folder / one).is_dir()), None)


def written_name(data: ImageSet) -> str:
    """Return the folder in which a set that was written of this one is looked for."""
    return f"{Path(data.name.rpartition(':')[2]).name}-c"


def find_written(data: ImageSet, folder: Path | None) -> Path | None:
    """Find the folder ``<data set>-c`` that `entprop_fast.corrupt` wrote of this one, or None."""
    if folder is None:
        return None
    root = folder / written_name(data)
    marker = read_marker(root)
    if marker is not None and marker.get("dataset") != data.name:
        raise ValueError(f"{root} was made from {marker.get('dataset')!r}, not from {data.name!r}")
    return None if marker is None else root


def open_suite(
    name: str,
    root: Path,
    data: ImageSet,
    batch_size: int,
    *,
    extra: bool = False,
    workers: int | None = None,
) -> Suite:
    """Open the set in ``root``, checked as far as can be without reading every image.

    `name`, a key of `OFFICIAL`, decides the layout; `data` is the clean test set.
    """
    title = OFFICIAL[name][0]
    marker = read_marker(root)
    source = f"official {title}" if marker is None else source_of(root, marker)
    if marker is not None and name == "imagenet-c":
        source += f", JPEG of quality {JPEG_QUALITY}"
    more = EXTRA_KINDS if extra else ()
    kinds = (*COMMON_KINDS, *more)
    if name == "imagenet-c":
        images, samples, aligned = _folders(root, kinds, data, batch_size, workers)
        read = [root / kind / str(severity) for kind in kinds for severity in SEVERITIES]
    else:
        (images, samples), aligned = _arrays(root, kinds, data, batch_size), True
        read = [root / f"{kind}.npy" for kind in kinds]
    every = itertools.product(kinds, SEVERITIES, range(0, images, batch_size))
    return Suite(
        name=title if marker is None else root.name,
        source=source,
        kinds=COMMON_KINDS,
        extra=more,
        images=images,
        places=[Place(*one) for one in every],
        samples=samples,
        official=marker is None,
        aligned=aligned,
        read_from=tuple((str(one), one.stat().st_mtime_ns) for one in read if one.exists()),
    )


def _arrays(
    root: Path, kinds: Sequence[str], data: ImageSet, batch_size: int
) -> tuple[int, _Samples]:
    count = data.num_test
    channels, height, width = data.image_shape
    shape = (len(SEVERITIES) * count, height, width, channels)
    labels = _labels(root / "labels.npy", count, data.num_classes)
    differing = (labels != data.test_labels.cpu()).nonzero()
    if len(differing):
        raise ValueError(
            f"{root / 'labels.npy'}: the labels are not those of {data.name}'s test images "
            f"{int(differing[0])} ...: the set was made from others"
        )
    files = {kind: open_array(root / f"{kind}.npy", shape) for kind in kinds}

    def samples(places: Sequence[Place]) -> Iterator[Sample]:
        for place in places:
            kind, severity, first = place
            last = min(first + batch_size, count)
            start = (severity - 1) * count
            rows = np.array(files[kind][start + first : start + last])  # out of the file
            images = torch.from_numpy(rows).permute(0, 3, 1, 2)
            yield Sample(place, to_float(images), labels[first:last])

    return count, samples


def open_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Map a uint8 array of that shape from its ``.npy`` file; nothing pickled is ever run."""
    array = load_npy(path)
    if array.dtype != np.uint8 or array.shape != shape:
        raise ValueError(f"{path} holds {array.dtype} {array.shape}; uint8 {shape} wanted")
    return array


def _labels(path: Path, count: int, num_classes: int) -> Tensor:
    """Read the labels of one severity, which those of all five must repeat."""
    array = load_npy(path)
    wanted = len(SEVERITIES) * count
    if array.dtype.kind not in "iu" or array.shape != (wanted,):
        raise ValueError(f"{path} holds {array.dtype} {array.shape}; {wanted} whole numbers wanted")
    labels = torch.from_numpy(np.array(array).astype(np.int64)).view(len(SEVERITIES), count)
    if not torch.equal(labels, labels[:1].expand_as(labels)):
        raise ValueError(f"{path}: the labels differ between severities")
    if not ((labels >= 0) & (labels < num_classes)).all():
        raise ValueError(f"{path} holds labels outside 0 ... {num_classes - 1}")
    return labels[0].clone()


def _folders(
    root: Path, kinds: Sequence[str], data: ImageSet, batch_size: int, workers: int | None
) -> tuple[int, _Samples, bool]:
    """Find its images, in the clean ones' order where all kinds and severities have their names."""
    lists: dict[tuple[str, int], FileList] = {}
    left_out = LeftOut()
    for kind in kinds:
        # As its archives unpack: either side by side, or each within its own category's folder.
        places = [root / kind, *sorted(root.glob(f"*/{kind}"))]
        place = next((one for one in places if one.is_dir()), root / kind)
        for severity in SEVERITIES:
            lists[kind, severity] = class_folders(place / str(severity), data.class_names, left_out)
    if left := left_out.lines():
        message = f"{root}: left out: {'; '.join(left)}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    first = next(iter(lists.values()))
    for files in lists.values():
        if not torch.equal(files.labels, first.labels):
            raise ValueError(
                f"{files.root} holds {len(files)} images, {first.root} {len(first)}, or of other "
                f"classes: every kind and severity is made from the same images"
            )
    names = data.test.names() if isinstance(data, ImageFiles) else []
    found = {place: in_order(files, names) for place, files in lists.items()}
    ordered = {place: files for place, files in found.items() if files is not None}
    aligned = len(ordered) == len(lists)
    taken = ordered if aligned else lists
    size = data.image_shape[1]

    def samples(places: Sequence[Place]) -> Iterator[Sample]:
        for folder, each in itertools.groupby(places, lambda place: place[:2]):
            batches = list(each)
            starts = [place.first for place in batches]
            read = image_batches(taken[folder], size, batch_size, workers, starts)
            for place, (images, labels) in zip(batches, read, strict=True):
                yield Sample(place, images, labels)

    return len(first), samples, aligned
