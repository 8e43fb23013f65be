"""Writes generated sets in the layout of the published ones, marked as generated."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entprop_fast.checkpoint import write_atomically
from entprop_fast.data import SEVERITIES, ImageFiles, ImageSet
from entprop_fast.data.common_corruptions import GENERATOR, Scale, corrupted_bytes
from entprop_fast.evaluation.official import JPEG_QUALITY, MARKER
from entprop_fast.evaluation.suites import generated_source
from entprop_fast.optional import needs


def write_arrays(
    data: ImageSet,
    root: Path,
    kinds: Sequence[str],
    *,
    scale: Scale,
    seed: int,
    device: torch.device,
    batch_size: int = 500,
    about: dict[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """As CIFAR-C: ``<kind>.npy``, uint8 ``[5 N, H, W, C]`` by severity, and ``labels.npy``.

    Args:
        data: whose test images are corrupted.
        root: the folder, made if need be.
        kinds: of corruption.
        scale: of their strengths.
        seed: of their draws.
        device: to work on.
        batch_size: images at a time.
        about: goes into the marker file too.
        say: told each kind.
    """
    about = {**_about(data, kinds, scale, seed), **(about or {})}
    _mark(root, about, complete=False)
    count, (channels, height, width) = data.num_test, data.image_shape
    labels = torch.cat([labels for _, labels in data.test_batches(batch_size)])
    small = np.uint8 if data.num_classes <= 256 else np.int64
    np.save(root / "labels.npy", np.tile(labels.numpy().astype(small), len(SEVERITIES)))
    for kind in kinds:
        if say:
            say(f"{kind}: {root / kind}.npy")
        part = root / f"{kind}.npy.part"
        shape = (len(SEVERITIES) * count, height, width, channels)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        # Not mapped: a full disk would be a signal that ends the process, not an error.
        with part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
            begin, size = file.tell(), height * width * channels
            for first, images, _ in _batches(data, batch_size, device):
                for severity in SEVERITIES:
                    made = corrupted_bytes(
                        images, kind, severity, scale=scale, seed=seed, first=first
                    )
                    file.seek(begin + ((severity - 1) * count + first) * size)
                    file.write(made.permute(0, 2, 3, 1).cpu().numpy().tobytes())
        part.replace(root / f"{kind}.npy")
    _mark(root, about, complete=True)


def write_folders(
    data: ImageFiles,
    root: Path,
    kinds: Sequence[str],
    *,
    scale: Scale,
    seed: int,
    device: torch.device,
    batch_size: int = 100,
    say: Callable[[str], None] | None = None,
) -> None:
    """As ImageNet-C: ``<kind>/<severity>/<class>/<name>.JPEG`` of quality 85.

    Arguments are `write_arrays`'; the images are as the evaluation's transform cuts them.

    Raises:
        ValueError: two test images of a class have the same name but for the suffix, or a class is
            called as no folder can be.
    """
    for name in data.class_names:
        if name in ("", ".", "..") or "/" in name or os.sep in name:
            raise ValueError(f"class {name!r} cannot be the name of a folder of the set")
    with needs("PIL", extra="vision", purpose="writing image files"):
        from PIL import Image
    names = [data.test.path(i).stem for i in range(data.num_test)]
    places = [
        f"{data.class_names[label]}/{name}.JPEG"
        for label, name in zip(data.test.labels.tolist(), names, strict=True)
    ]
    if len(set(places)) < len(places):
        twice = next(one for one in places if places.count(one) > 1)
        raise ValueError(f"two test images would both become {twice}")
    about = _about(data, kinds, scale, seed)
    _mark(root, about, complete=False)
    for first, images, _ in _batches(data, batch_size, device):
        if say:
            say(f"images {first} ... {first + len(images) - 1} of {data.num_test}")
        for kind in kinds:
            for severity in SEVERITIES:
                made = corrupted_bytes(images, kind, severity, scale=scale, seed=seed, first=first)
                for i, pixels in enumerate(made.permute(0, 2, 3, 1).cpu().numpy()):
                    path = root / kind / str(severity) / places[first + i]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path, "JPEG", quality=JPEG_QUALITY, optimize=True)
    _mark(root, about, complete=True)


def _batches(
    data: ImageSet, batch_size: int, device: torch.device
) -> Iterator[tuple[int, Tensor, Tensor]]:
    first = 0
    for images, labels in data.test_batches(batch_size):
        yield first, images.to(device), labels
        first += len(labels)


def _about(data: ImageSet, kinds: Sequence[str], scale: Scale, seed: int) -> dict[str, Any]:
    return {
        "source": generated_source(scale, seed),
        "dataset": data.name,
        "scale": scale,
        "seed": seed,
        "generator": GENERATOR,
        "kinds": list(kinds),
    }


def _mark(root: Path, about: dict[str, Any], *, complete: bool) -> None:
    """From the first file on, so that not even a part of a set can pass for an official one."""
    root.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**about, "complete": complete}, indent=2)
    write_atomically(root / MARKER, f"{text}\n".encode())
