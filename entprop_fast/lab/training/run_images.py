"""Give a run its images: the loader that trains, and the test set on the run's device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from entprop_fast.lab import job
from entprop_fast.lab.data import (
    ImageData,
    ImageFiles,
    ImageSet,
    Loader,
    PrefetchLoader,
    channels_last,
    create_loader,
    to_float,
)
from entprop_fast.lab.data.loader import Batch
from entprop_fast.lab.evaluation.scored_network import Normalization
from entprop_fast.lab.training.augment_setting import NONE, read_augment
from entprop_fast.lab.training.config import Config


class TestSet:
    """Hold the test images on a device: tensors whole, files read anew.

    `normalization` and `input_range` say how the network takes them, see `evaluate_model`.

    Args:
        data: the data set.
        device: where the batches are.
        batch_size: images in a batch.
        workers: processes that read files, see `entprop_fast.data.PrefetchLoader`.
    """

    normalization: Normalization | None = None
    input_range: tuple[float, float] = (0.0, 1.0)

    def __init__(
        self, data: ImageSet, device: torch.device, *, batch_size: int, workers: int | None
    ) -> None:
        self.data, self.device = data, device
        self.batch_size, self.workers = batch_size, workers

    @cached_property
    def images(self) -> Tensor:
        """All images, float ``[N, C, H, W]``; `batches` does without that memory for files."""
        if isinstance(self.data, ImageData):
            return channels_last(to_float(self.data.test_images.to(self.device)))
        return channels_last(torch.cat([images for images, _ in self.batches()]))

    @cached_property
    def labels(self) -> Tensor:
        """Labels of all images, int64 ``[N]``."""
        return self.data.test_labels.to(self.device)

    def batches(self, own: slice = slice(None)) -> Iterator[Batch]:
        """Yield all of them in order, float images in channels_last and labels.

        `own` chooses among the batches, with a start and a step.
        """
        if isinstance(self.data, ImageData):
            parts = (one.split(self.batch_size)[own] for one in (self.images, self.labels))
            yield from zip(*parts, strict=True)
            return
        starts = self.data.test_starts(self.batch_size)[own]
        for images, labels in self.data.test_batches(
            self.batch_size, workers=self.workers, starts=starts
        ):
            yield channels_last(images.to(self.device)), labels.to(self.device)


def training_loader(
    config: Config, data: ImageSet, device: torch.device, say: Callable[[str], None]
) -> Loader:
    """Create the loader that the settings ask for; `say` where its images are, if not there.

    Raises:
        ValueError: training and test images of two dtypes, and as `create_loader`.
    """
    in_memory, here = isinstance(data, ImageData), job.current()
    if isinstance(data, ImageData):
        _check_dtypes(data)
    setting = read_augment(config.augment)
    loader = create_loader(
        config.loader,
        data.training(setting.reading),
        config.batch_size,
        seed=config.seed,
        drop_last=config.drop_last,
        device=device,
        augment=setting.chain,
        workers=config.workers,
        unaugmented=None if isinstance(data, ImageData) else data.training(NONE),
        rank=here.rank,
        world=here.world,
    )
    if isinstance(loader, PrefetchLoader):
        read = "read from files" if isinstance(data, ImageFiles) else "read from a Dataset"
        where = "stay in host memory" if in_memory else f"are {read}"
        say(f"training images {where}: {loader.workers} workers")
    return loader


def _check_dtypes(data: ImageData) -> None:
    """Refuse bytes in one set and floats in the other: most likely two scales as well."""
    train, test = data.train_images.dtype, data.test_images.dtype
    if train != test and torch.uint8 in (train, test):
        raise ValueError(f"training images are {train}, test images {test}: uint8 both or neither")
