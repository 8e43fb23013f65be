"""Choose a loader: the data set on the device where it fits, read ahead where it does not."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from entprop_fast.lab.data.loader import DeviceLoader, Loader, LoaderOptions, check_batching
from entprop_fast.lab.data.prefetch import PrefetchLoader
from entprop_fast.name_errors import unknown

LOADERS = ("auto", "device", "prefetch")

SHARE = 0.25  # of the free device memory that images may take; activations need most of it


def create_loader(
    kind: str,
    data: tuple[Tensor, Tensor] | Dataset[Any],
    batch_size: int,
    *,
    workers: int | None = None,
    unaugmented: Dataset[Any] | None = None,
    **options: Unpack[LoaderOptions],
) -> Loader:
    """Create the loader of a data set; its kind changes where images are, not what is in a batch.

    Args:
        kind: ``device``; ``prefetch``; ``auto``: device for images in memory that `fits` it.
        data: (images ``[N, C, H, W]``, labels ``[N]``) in memory, or a torch data set
            (`PrefetchLoader`).
        batch_size: images in a batch.
        workers: see `PrefetchLoader`.
        unaugmented: see `PrefetchLoader`; for a torch data set.
        options: seed, drop_last, device, augment and normalize, see `Loader`.

    Raises:
        ValueError: an unknown ``kind``, ``device`` for data that is not in memory, and the
            loaders' own.
    """
    if kind not in LOADERS:
        raise unknown("loader", kind, LOADERS)
    if not isinstance(data, tuple):
        if kind == "device":
            raise ValueError("loader 'device' needs images in memory, not a data set that reads")
        return PrefetchLoader(data, batch_size, workers=workers, unaugmented=unaugmented, **options)
    images, labels = data
    check_batching(images, labels, batch_size)
    if kind == "device" or (
        kind == "auto" and fits(images, torch.device(options.get("device", "cpu")))
    ):
        return DeviceLoader(images, labels, batch_size, **options)
    return PrefetchLoader(TensorDataset(images, labels), batch_size, workers=workers, **options)


def fits(images: Tensor, device: torch.device) -> bool:
    """Return whether images are to live on the device: in a quarter of a GPU's free memory.

    Those that are on the device, as all in memory are on a CPU, do.
    """
    if device.type != "cuda" or images.device.type == "cuda":
        return True
    return images.nbytes <= SHARE * torch.cuda.mem_get_info(device)[0]
