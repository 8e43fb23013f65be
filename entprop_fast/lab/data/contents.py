"""Look at the images of a data set: sizes, modes, what cannot be read, what is there twice."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from entprop_fast.lab.data.lists import Splits
from entprop_fast.lab.data.read_image import describe_image, read_image
from entprop_fast.lab.data.same_files import TEST, TRAINING, Line
from entprop_fast.lab.data.split_checks import first_of
from entprop_fast.lab.data.verify import in_threads

T = TypeVar("T")
Watch = Callable[[Iterable[T], int, str], Iterator[T]]  # items, their number, what they are

NAMED = 10  # files that a line names
_DIGEST = 16  # bytes


def unwatched(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Show nothing."""
    return iter(items)


class Image(NamedTuple):
    """Say what one file holds; `reason` says why it cannot be read."""

    size: tuple[int, int] = (0, 0)
    mode: str = ""
    frames: int = 1
    turned: bool = False
    digest: bytes = b""  # of its pixels: of one picture under two names, suffixes or EXIF data
    reason: str = ""


@dataclass
class Contents:
    """Count what all images hold."""

    # Width and height to the number of images
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)  # Pillow's mode likewise
    # (split, reason) to files
    unreadable: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    # (split, label) to the number of images that can be read
    readable: Counter[tuple[str, int]] = field(default_factory=Counter)
    animated: list[str] = field(default_factory=list)  # files with more than one frame
    turned: list[str] = field(default_factory=list)  # files that EXIF asks to turn
    # Lines with the same pixels, the first one first; groups of two and more
    same: list[list[Line]] = field(default_factory=list)

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield width, height and mode of the images, for a table."""
        for what, side in (("width", 0), ("height", 1)):
            sides = [size[side] for size, count in self.sizes.items() for _ in range(count)]
            if sides:
                yield what, f"{min(sides)} to {max(sides)} pixels, median {median(sides):g}"
        if self.modes:
            yield "modes", ", ".join(f"{mode} {n:,}" for mode, n in self.modes.most_common())


def read_files(splits: Splits, watch: Watch[Image]) -> Contents:
    """Decode every image to its end."""
    lines = [Line(TRAINING, *one) for one in splits.train]
    lines += [Line(TEST, *one) for one in splits.test]

    def inspect(number: int) -> Image:
        path = splits.root / lines[number].file
        try:
            pixels = np.asarray(read_image(path))
            return Image(*describe_image(path), _digest(pixels))
        except OSError as error:
            return Image(reason=str(error).removeprefix(f"{path}: "))

    found = Contents()
    groups: defaultdict[bytes, list[Line]] = defaultdict(list)
    images = watch(in_threads(inspect, len(lines)), len(lines), "images")
    for line, image in zip(lines, images, strict=True):
        if image.reason:
            found.unreadable.setdefault((line.split, image.reason), []).append(line.file)
            continue
        found.sizes[image.size] += 1
        found.modes[image.mode] += 1
        found.readable[line.split, line.label] += 1
        if image.frames > 1:
            found.animated.append(line.file)
        if image.turned:
            found.turned.append(line.file)
        groups[image.digest].append(line)
    found.same = [group for group in groups.values() if len(group) > 1]
    return found


def read_tensors(splits: Mapping[str, tuple[Tensor, Tensor]]) -> Contents:
    """Look at images and labels in memory, by the split's name; they are named by their numbers."""
    found = Contents()
    groups: defaultdict[bytes, list[Line]] = defaultdict(list)
    for split, (images, labels) in splits.items():
        height, width = images.shape[2:]
        found.sizes[width, height] += len(images)
        for row, (pixels, label) in enumerate(zip(images.numpy(), labels.tolist(), strict=True)):
            groups[_digest(pixels)].append(Line(split, f"{split} image {row}", label))
            found.readable[split, label] += 1
    found.same = [group for group in groups.values() if len(group) > 1]
    return found


def duplicates(same: Iterable[list[Line]]) -> Iterator[tuple[str, bool]]:
    """Say what is there twice, and whether an accuracy is wrong for it."""
    leaked: defaultdict[str, list[str]] = defaultdict(list)
    shared: defaultdict[str, list[str]] = defaultdict(list)
    contradicted: list[str] = []
    again: defaultdict[str, list[str]] = defaultdict(list, {TEST: [], TRAINING: []})
    for group in same:
        first = group[0]
        for line in group[1:]:
            named = f"{line.file} = {first.file}"
            if line.label != first.label:
                contradicted.append(f"{named}, labels {line.label} and {first.label}")
            elif line.split == first.split:
                again[line.split].append(named)
        trained = first.split == TRAINING  # these come first
        for line in group[1:]:
            if line.split != first.split:
                found = leaked if trained else shared
                found[line.split].append(f"{line.file} = {first.file}")
    for pairs, what, wrong in (
        *((pairs, f"{one} images that are training images", True) for one, pairs in leaked.items()),
        (contradicted, "images in two classes", True),
        *((pairs, f"{one} images that other tests have", False) for one, pairs in shared.items()),
        *(
            (pairs, f"{one} images that {'are there' if one == TRAINING else 'count'} twice", False)
            for one, pairs in again.items()
        ),
    ):
        if pairs:
            yield f"{what}: {len(pairs):,} ({first_of(pairs, NAMED)})", wrong


def _digest(pixels: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    shape = repr((pixels.shape, pixels.dtype.str)).encode()
    digest = hashlib.blake2b(shape, digest_size=_DIGEST)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()
