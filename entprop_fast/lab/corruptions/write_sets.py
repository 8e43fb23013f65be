"""Write generated sets in the layout of the published ones, marked as generated.

A killed call can be gone on with: a file that has its name is whole.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entprop_fast.devices import with_float64
from entprop_fast.lab import files, in_step, stopping
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import Scale, corrupted_bytes
from entprop_fast.lab.corruptions.official_sets import JPEG_QUALITY
from entprop_fast.lab.corruptions.set_marker import Marker, about_set, progress_name
from entprop_fast.lab.data import ImageData, ImageFiles
from entprop_fast.lab.data.image_values import to_float
from entprop_fast.lab.files import write_atomically
from entprop_fast.lab.job import current
from entprop_fast.optional import require

EVERY = 5.0  # seconds: the most that a kill can cost of an array

Place = tuple[str, int]  # kind and severity
Say = Callable[[str], None]


def write_arrays(
    data: ImageData,
    root: Path,
    kinds: Sequence[str],
    *,
    scale: Scale,
    seed: int,
    device: torch.device,
    batch_size: int = 500,
    resume: bool = False,
    say: Say | None = None,
) -> None:
    """Write ``<kind>.npy``, uint8 ``[5 N, H, W, C]`` by severity, and ``labels.npy``: as CIFAR-C.

    `resume` goes on with what a call with these settings left, to the same bytes. In a job each
    process writes some of the kinds.
    """
    device, job = with_float64(device), current()
    marker = Marker(root)
    with in_step.together():
        if job.is_main:
            marker.begin(about_set(data, kinds, scale, seed), resume=resume)
            small = np.uint8 if data.num_classes <= 256 else np.int64
            buffer = io.BytesIO()
            np.save(buffer, np.tile(data.test_labels.cpu().numpy().astype(small), len(SEVERITIES)))
            write_atomically(root / "labels.npy", buffer.getbuffer())

    def made(kind: str, first: int) -> Iterator[tuple[int, Tensor]]:
        images = to_float(data.test_images[first : first + batch_size]).float().to(device)
        for severity in SEVERITIES:
            stopping.check()
            yield (
                severity,
                corrupted_bytes(images, kind, severity, scale=scale, seed=seed, first=first),
            )

    def write(own: Sequence[str]) -> Generator[int, None, None]:
        for kind in own:
            if say:
                say(f"{kind}: {root / kind}.npy")
            yield from _write_array(root, data, kind, batch_size, made)

    left = [kind for kind in kinds if not (resume and (root / f"{kind}.npy").exists())]
    if say and job.world > 1:
        say(f"{job.world} processes share {len(left)} kinds, of which the first one names its own")
    with contextlib.closing(write(job.share(job.from_main(left)))) as written:
        try:
            in_step.work_through(written, int)
        except stopping.Stopped as stopped:
            there = sum((root / f"{kind}.npy").exists() for kind in kinds)
            stopped.saved = (
                f"{there} of {len(kinds)} kinds and what was begun of others are kept in {root}"
            )
            raise
    with in_step.together():
        if job.is_main:
            for kind in kinds:
                _progress(root, kind).unlink(missing_ok=True)
            marker.complete()


def _write_array(
    root: Path,
    data: ImageData,
    kind: str,
    batch_size: int,
    made: Callable[[str, int], Iterator[tuple[int, Tensor]]],
) -> Iterator[int]:
    """Write all severities of a kind, or what is left of it; yield after each batch its images."""
    path = root / f"{kind}.npy"
    part, progress = path.with_name(f"{path.name}.part"), _progress(root, kind)
    done = int(progress.read_text()) if part.exists() and progress.exists() else 0
    count, (channels, height, width) = data.num_test, data.image_shape
    size, kept = height * width * channels, time.monotonic()
    # Not mapped: a full disk would be a signal that ends the process, not an error.
    with (files.update if done else files.create)(part) as file:
        header = {"descr": "|u1", "fortran_order": False}
        header["shape"] = (len(SEVERITIES) * count, height, width, channels)
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
        begin = file.tell()
        try:
            for first in range(done, count, batch_size):
                if time.monotonic() - kept >= EVERY:
                    _keep(file, progress, done)
                    kept = time.monotonic()
                for severity, images in made(kind, first):
                    file.seek(begin + ((severity - 1) * count + first) * size)
                    file.write(_pixels(images).tobytes())
                done = min(first + batch_size, count)
                yield done - first
        except (stopping.Stopped, GeneratorExit):  # the latter where something else ends the work
            _keep(file, progress, done)
            raise
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _keep(file: IO[bytes], progress: Path, done: int) -> None:
    file.flush()
    os.fsync(file.fileno())
    write_atomically(progress, f"{done}\n".encode())


def _progress(root: Path, kind: str) -> Path:
    """Name the file that says how many images of a kind are written, while it is."""
    return root / progress_name(kind)


def write_folders(
    data: ImageFiles,
    root: Path,
    kinds: Sequence[str],
    *,
    scale: Scale,
    seed: int,
    device: torch.device,
    batch_size: int = 100,
    resume: bool = False,
    say: Say | None = None,
) -> None:
    """Write folders as ImageNet-C's: ``<kind>/<severity>/<class>/<name>.JPEG`` of quality 85.

    Arguments are `write_arrays`'; the images are as the evaluation's transform cuts them. In a job
    each process writes all kinds of some batches.
    """
    names, device, job = _names(data), with_float64(device), current()
    marker, there = Marker(root), None
    places = list(itertools.product(kinds, SEVERITIES))
    with in_step.together():
        if job.is_main:
            marker.begin(about_set(data, kinds, scale, seed), resume=resume)
            if resume:
                there = _there(root, places, names)
    there = job.from_main(there)
    if there is None:
        there = np.zeros((len(places), len(names)), bool)
    starts = data.test_starts(batch_size)
    left = [first for first in starts if not there[:, first : first + batch_size].all()]
    folder_within = functools.cache(files.folder_within)  # each is made and looked at once

    def write(own: Sequence[int]) -> Iterator[int]:
        read = data.test_batches(batch_size, starts=own)
        for first, (images, _) in zip(own, read, strict=True):
            rows = slice(first, first + len(images))
            if say:
                say(f"images {first} ... {rows.stop - 1} of {data.num_test}")
            images = images.to(device)
            for place, (kind, severity) in enumerate(places):
                stopping.check()
                if there[place, rows].all():
                    continue
                made = corrupted_bytes(images, kind, severity, scale=scale, seed=seed, first=first)
                for name, pixels in zip(names[rows], _pixels(made), strict=True):
                    group, file = name.split("/")
                    _write_image(folder_within(root, kind, str(severity), group) / file, pixels)
                yield len(images)

    try:
        in_step.work_through(write(job.share(left)), int)
    except stopping.Stopped as stopped:
        stopped.saved = f"the images written so far are kept in {root}"
        raise
    with in_step.together():
        if job.is_main:
            marker.complete()


def _names(data: ImageFiles) -> list[str]:
    for name in data.class_names:
        if name in ("", ".", "..") or "/" in name or os.sep in name:
            raise ValueError(f"class {name!r} cannot be the name of a folder of the set")
    names = [f"{data.class_names[label]}/{name}.JPEG" for label, name in data.test.names()]
    if len(set(names)) < len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise ValueError(f"two test images would both become {twice}")
    return names


def _there(root: Path, places: Sequence[Place], names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which images are written already: bool ``[places, images]``."""
    found = np.zeros((len(places), len(names)), bool)
    for row, (kind, severity) in zip(found, places, strict=True):
        stopping.check()
        folder = root / kind / str(severity)
        # After a power failure a file may be empty.
        written = {
            f"{one.parent.name}/{one.name}" for one in folder.glob("*/*") if one.stat().st_size
        }
        row[:] = [name in written for name in names]
    return found


def _pixels(images: Tensor) -> NDArray[np.uint8]:
    """Turn uint8 ``[B, C, H, W]`` into ``[B, H, W, C]``."""
    pixels: NDArray[np.uint8] = images.permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def _write_image(path: Path, pixels: Any) -> None:
    require("PIL", extra="vision", purpose="writing image files")
    from PIL import Image

    part = path.with_suffix(".part")
    with files.create(part) as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    part.replace(path)
