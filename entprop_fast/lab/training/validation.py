"""Score a network on held-out training images, clean and corrupted, after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from entprop_fast.devices import with_float64
from entprop_fast.lab.corruptions import corrupt
from entprop_fast.lab.corruptions.common import check_channels, corrupted_bytes
from entprop_fast.lab.data import ImageData, ImageSet, channels_last, to_float
from entprop_fast.lab.data.datasets import EMBEDDED
from entprop_fast.lab.data.loader import Batch
from entprop_fast.lab.evaluation import metrics
from entprop_fast.lab.evaluation.choose_suite import usual_batch_size, usual_scale

SEVERITY = 3
# One of each family; for digits, whose ten kinds are others, as far apart.
KINDS = ("gaussian_noise", "defocus_blur", "fog", "contrast", "jpeg_compression")
DIGITS_KINDS = ("gaussian", "blur", "contrast", "rotate", "pixelate")

Over = Callable[[Iterable[Batch]], Iterator[Batch]]


class HeldOutScore(NamedTuple):
    """Hold the accuracies of a network on held-out images, in percent, and their mean.

    `ra` is the mean over the five kinds of corruption, `hscore` the harmonic mean of both.
    """

    sa: float
    ra: float
    hscore: float


class Validation:
    """Keep held-out images: what early stopping and the best checkpoint go by.

    Corrupted images in memory are made once; those of files anew each time.

    Args:
        data: a data set whose test images were held out of the training images.
        device: to score on.
        workers: processes that read files.

    Raises:
        ValueError: images of other channels than the corruptions take.
    """

    def __init__(self, data: ImageSet, device: torch.device, *, workers: int | None) -> None:
        self.data, self.device, self.workers = data, device, workers
        self.kinds = DIGITS_KINDS if data.name == EMBEDDED else KINDS
        for kind in KINDS if self.kinds is KINDS else ():
            check_channels(kind, data.image_shape[0])
        self.batch_size = usual_batch_size(data)
        self._made: dict[str, list[Batch]] = {}

    @property
    def images(self) -> int:
        """Return how many images go through the network each time."""
        return (1 + len(self.kinds)) * self.data.num_test

    def legend(self) -> str:
        """Say in a line what the scores are of."""
        return (
            f"held-out Hscore: of {self.data.num_test} training images that are not trained on, "
            f"clean and under {', '.join(self.kinds)} (severity {SEVERITY})"
        )

    def score(self, model: nn.Module, over: Over = iter) -> HeldOutScore:
        """Measure the network in eval mode; `over` passes the batches on.

        Raises:
            NaNLogits: the network answers NaN or infinity.
        """
        sa = metrics.accuracy(model, over(self._clean()))
        each = [metrics.accuracy(model, over(self._corrupted(kind))) for kind in self.kinds]
        ra = sum(each) / len(each)
        return HeldOutScore(100 * sa, 100 * ra, 100 * metrics.hscore(sa, ra))

    def _clean(self) -> Iterator[Batch]:
        for images, labels in self.data.test_batches(self.batch_size, workers=self.workers):
            yield channels_last(images.to(self.device)), labels.to(self.device)

    def _corrupted(self, kind: str) -> Iterator[Batch]:
        if not isinstance(self.data, ImageData):
            yield from ((to_float(images), labels) for images, labels in self._make(kind))
            return
        if kind not in self._made:
            self._made[kind] = list(self._make(kind))
        for images, labels in self._made[kind]:
            yield to_float(images), labels

    def _make(self, kind: str) -> Iterator[Batch]:
        """Yield corrupted images as they are kept: 8-bit ones, but for digits."""
        first, maker = 0, with_float64(self.device)
        for images, labels in self._clean():
            if self.data.name == EMBEDDED:
                made = corrupt(images, kind, SEVERITY, first=first)
            else:
                made = corrupted_bytes(
                    images.to(maker), kind, SEVERITY, scale=usual_scale(self.data), first=first
                )
            yield channels_last(made.to(self.device)), labels
            first += len(labels)
