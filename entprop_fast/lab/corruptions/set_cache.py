"""Keep generated images on disk, found again only for the same clean images and generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import torch

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS, EXTRA_KINDS, GENERATOR, Scale
from entprop_fast.lab.corruptions.official_sets import open_suite, written_name
from entprop_fast.lab.corruptions.set_marker import digest_of_clean, read_marker
from entprop_fast.lab.corruptions.suites import Suite, generated_kinds
from entprop_fast.lab.corruptions.write_sets import write_arrays
from entprop_fast.lab.data import ImageFiles, ImageSet
from entprop_fast.lab.job import current

_ARRAYS = "cifar10-c"  # the layout


def cached_suite(
    data: ImageSet,
    scale: Scale,
    batch_size: int,
    device: torch.device,
    folder: Path,
    *,
    seed: int = 0,
    extra: bool = False,
    say: Callable[[str], None] | None = None,
) -> Suite:
    """Read the generated suite from ``folder``, written there first if it is not complete."""
    if isinstance(data, ImageFiles):
        raise ValueError(
            f"cache_dir: {data.name} is read from files, and its corrupted images would take "
            f"{_gigabytes(data, extra):.1f} GB in a cache. Write them once, as JPEG: python -m "
            f"entprop_fast.corrupt --dataset {data.name} --data-dir DIR --out "
            f"DIR/{written_name(data)} --scale {scale}; evaluate --data-dir DIR then finds them, "
            "without --cache, --scale and --corruptions generated"
        )
    kinds = generated_kinds(data, extra)
    digest = digest_of_clean(data)
    root = folder / f"{data.name}-{scale}-seed{seed}-{digest[:12]}"
    marker = current().from_main(read_marker(root))
    if not _holds(marker, digest, kinds):
        write_arrays(
            data,
            root,
            kinds,
            scale=scale,
            seed=seed,
            device=device,
            batch_size=batch_size,
            resume=_made_for(marker, digest) and marker.get("kinds") == list(kinds),
            say=say,
        )
    suite = open_suite(_ARRAYS, root, data, batch_size, extra=extra)
    return replace(suite, name=f"{data.name}, common corruptions")


def _gigabytes(data: ImageSet, extra: bool) -> float:
    copies = len(SEVERITIES) * (len(COMMON_KINDS) + (len(EXTRA_KINDS) if extra else 0))
    return copies * data.num_test * math.prod(data.image_shape) / 1e9


def _holds(marker: dict[str, Any] | None, digest: str, kinds: Sequence[str]) -> bool:
    return (
        _made_for(marker, digest)
        and marker.get("complete") is True
        and set(kinds) <= set(marker.get("kinds", ()))
    )


def _made_for(marker: dict[str, Any] | None, digest: str) -> TypeGuard[dict[str, Any]]:
    """Return whether a set is of these clean images, by the present generator."""
    return (
        marker is not None
        and marker.get("generator") == GENERATOR
        and marker.get("clean") == digest
    )
