"""Make corrupted test sets, and say what a suite of corruptions is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from entprop_fast.devices import with_float64
from entprop_fast.lab.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from entprop_fast.lab.corruptions.common import (
    COMMON_KINDS,
    EXTRA_KINDS,
    GENERATOR,
    Scale,
    check_channels,
    corrupted_bytes,
)
from entprop_fast.lab.data import ImageData, ImageSet
from entprop_fast.lab.data.image_values import to_float
from entprop_fast.lab.job import current

GENERATED = "generated"  # how the source of images made here begins
PROCEDURAL_FROST = "frost on procedural textures"


class Place(NamedTuple):
    """Name a batch of one kind and severity; `first` is the number of its first image."""

    kind: str
    severity: int
    first: int


class Sample(NamedTuple):
    """Hold the images and labels of a place."""

    place: Place
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Suite:
    """Corrupted versions of a test set."""

    name: str  # of the set
    source: str  # where its images come from, in the words of every table
    kinds: tuple[str, ...]  # those that RA is the mean of
    extra: tuple[str, ...]  # further ones, in no mean
    images: int  # how many each kind and severity has
    places: Sequence[Place]  # of all its batches, the extra kinds' too
    samples: Callable[[Sequence[Place]], Iterator[Sample]]  # reads some of the places, in order
    official: bool = False  # published files, not images made here
    aligned: bool = True  # each kind and severity has the clean test images, in their order
    # Files or folders that the images are in, each with its time of change
    read_from: tuple[tuple[str, int], ...] = ()
    by_batch: bool = False  # one reading of clean files gives all kinds of a batch

    def dealt(self, places: Sequence[Place]) -> Sequence[Place]:
        """Return the part of some places that is this process's, of the job that it is in."""
        return dealt(places, by_batch=self.by_batch)


def dealt(places: Sequence[Place], *, by_batch: bool) -> Sequence[Place]:
    """Return the part of some places that is this process's, of the job that it is in.

    With `by_batch` all kinds of a batch are one process's, if there are enough batches for all.
    """
    job, batches = current(), list(dict.fromkeys(place.first for place in places))
    if not by_batch or len(batches) < job.world:
        return job.share(places)
    own = set(job.share(batches))
    return [place for place in places if place.first in own]


def digits_suite(
    data: ImageSet, batch_size: int, device: torch.device, *, workers: int | None = None
) -> Suite:
    """Make the ten kinds of `entprop_fast.data.corrupt`, meant for 8x8 digits."""

    def samples(places: Sequence[Place]) -> Iterator[Sample]:
        for place, images, labels in clean_images(places, data, batch_size, device, workers):
            made = corrupt(images, place.kind, place.severity, first=place.first)
            yield Sample(place, made, labels)

    return Suite(
        name=f"{data.name}, ten corruptions",
        source=f"{GENERATED} (ten kinds for digits)",
        kinds=CORRUPTIONS,
        extra=(),
        images=data.num_test,
        places=_places(CORRUPTIONS, data, batch_size),
        samples=samples,
        by_batch=not isinstance(data, ImageData),
    )


def generated_suite(
    data: ImageSet,
    scale: Scale,
    batch_size: int,
    device: torch.device,
    *,
    seed: int = 0,
    extra: bool = False,
    workers: int | None = None,
) -> Suite:
    """Make the 15 common corruptions (and the 4 extra ones) on the device, as 8-bit images.

    On the CPU in place of a device that has no float64.
    """
    kinds, device = generated_kinds(data, extra), with_float64(device)

    def samples(places: Sequence[Place]) -> Iterator[Sample]:
        for place, images, labels in clean_images(places, data, batch_size, device, workers):
            kind, severity, first = place
            made = corrupted_bytes(images, kind, severity, scale=scale, seed=seed, first=first)
            yield Sample(place, to_float(made), labels)

    return Suite(
        name=f"{data.name}, common corruptions",
        source=generated_source(scale, seed),
        kinds=COMMON_KINDS,
        extra=kinds[len(COMMON_KINDS) :],
        images=data.num_test,
        places=_places(kinds, data, batch_size),
        samples=samples,
        by_batch=not isinstance(data, ImageData),
    )


def generated_kinds(data: ImageSet, extra: bool) -> tuple[str, ...]:
    """Return the 15 common kinds, and the 4 extra ones if wanted."""
    kinds = (*COMMON_KINDS, *(EXTRA_KINDS if extra else ()))
    for kind in kinds:
        check_channels(kind, data.image_shape[0])
    return kinds


def generated_source(scale: str, seed: int, generator: int = GENERATOR) -> str:
    """Return the words for images made by us; the first generator's did not name it."""
    published = {"cifar-c": "CIFAR-C", "imagenet-c": "ImageNet-C"}[scale]
    version = "" if generator == 1 else f", generator {generator}"
    return f"{GENERATED} ({published}'s strengths, seed {seed}, {PROCEDURAL_FROST}{version})"


def of_another_generator(source: str) -> bool:
    """Return whether these words of `generated_source` are of another generator's images."""
    return PROCEDURAL_FROST in source and f", generator {GENERATOR})" not in source


def _places(kinds: Sequence[str], data: ImageSet, batch_size: int) -> list[Place]:
    """Name all kinds and severities of a batch of clean images, then those of the next one."""
    every = itertools.product(data.test_starts(batch_size), kinds, SEVERITIES)
    return [Place(kind, severity, first) for first, kind, severity in every]


def clean_images(
    places: Sequence[Place],
    data: ImageSet,
    batch_size: int,
    device: torch.device,
    workers: int | None,
) -> Iterator[tuple[Place, Tensor, Tensor]]:
    """Yield the clean images and labels of each place; each batch is read once."""
    batches = [(first, list(each)) for first, each in itertools.groupby(places, lambda p: p.first)]
    starts = [first for first, _ in batches]
    read = data.test_batches(batch_size, workers=workers, starts=starts)
    for (images, labels), (_, each) in zip(read, batches, strict=True):
        images, labels = images.to(device), labels.to(device)
        for place in each:
            yield place, images, labels
