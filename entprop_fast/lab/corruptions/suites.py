"""Make corrupted test sets, and say what a suite of corruptions is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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
from entprop_fast.lab.data import ImageSet
from entprop_fast.lab.data.augment import to_float

GENERATED = "generated"  # how the source of images made here begins
PROCEDURAL_FROST = "frost on procedural textures"


class Sample(NamedTuple):
    """A batch of one kind and severity; `first` is the number of its first image."""

    kind: str
    severity: int
    first: int
    images: Tensor
    labels: Tensor


class Samples(Protocol):
    """A suite's images."""

    def __call__(self, severities: Sequence[int] = SEVERITIES, skip: int = 0) -> Iterator[Sample]:
        """Yield those of some severities, without the first `skip` of these samples."""


@dataclass(frozen=True)
class Suite:
    """Corrupted versions of a test set."""

    name: str  # of the set
    source: str  # where its images come from, in the words of every table
    kinds: tuple[str, ...]  # those that RA is the mean of
    extra: tuple[str, ...]  # further ones, in no mean
    images: int  # how many each kind and severity has
    samples: Samples  # gives those of some severities, all by default, in any order
    official: bool = False  # published files, not images made here
    aligned: bool = True  # each kind and severity has the clean test images, in their order
    # Files or folders that the images are in, each with its time of change
    read_from: tuple[tuple[str, int], ...] = ()


def digits_suite(
    data: ImageSet, batch_size: int, device: torch.device, *, workers: int | None = None
) -> Suite:
    """Make the ten kinds of `entprop_fast.data.corrupt`, meant for 8x8 digits."""

    def samples(severities: Sequence[int] = SEVERITIES, skip: int = 0) -> Iterator[Sample]:
        each = list(itertools.product(CORRUPTIONS, severities))
        for kind, severity, clean in _rounds(each, skip, data, batch_size, device, workers):
            made = corrupt(clean.images, kind, severity, first=clean.first)
            yield Sample(kind, severity, clean.first, made, clean.labels)

    return Suite(
        name=f"{data.name}, ten corruptions",
        source=f"{GENERATED} (ten kinds for digits)",
        kinds=CORRUPTIONS,
        extra=(),
        images=data.num_test,
        samples=samples,
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

    def samples(severities: Sequence[int] = SEVERITIES, skip: int = 0) -> Iterator[Sample]:
        each = list(itertools.product(kinds, severities))
        for kind, severity, clean in _rounds(each, skip, data, batch_size, device, workers):
            made = corrupted_bytes(
                clean.images, kind, severity, scale=scale, seed=seed, first=clean.first
            )
            yield Sample(kind, severity, clean.first, to_float(made), clean.labels)

    return Suite(
        name=f"{data.name}, common corruptions",
        source=generated_source(scale, seed),
        kinds=COMMON_KINDS,
        extra=kinds[len(COMMON_KINDS) :],
        images=data.num_test,
        samples=samples,
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


class _Clean(NamedTuple):
    first: int
    images: Tensor
    labels: Tensor


def _rounds(
    each: Sequence[tuple[str, int]],
    skip: int,
    data: ImageSet,
    batch_size: int,
    device: torch.device,
    workers: int | None,
) -> Iterator[tuple[str, int, _Clean]]:
    """Yield every batch of clean images with each kind and severity, but the first `skip`."""
    batches, rest = divmod(skip, len(each))
    first = batches * batch_size
    read = data.test_batches(batch_size, workers=workers)
    for images, labels in itertools.islice(read, batches, None):
        clean = _Clean(first, images.to(device), labels.to(device))
        for kind, severity in each[rest:]:
            yield kind, severity, clean
        rest, first = 0, first + len(labels)
