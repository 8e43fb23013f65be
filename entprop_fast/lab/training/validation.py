"""Score a network on held-out training images, clean and corrupted, after every epoch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from entprop_fast.devices import with_float64
from entprop_fast.eval_mode import evaluating
from entprop_fast.lab.corruptions import corrupt
from entprop_fast.lab.corruptions.common import check_channels, corrupted_bytes
from entprop_fast.lab.corruptions.suites import Place, clean_images, dealt
from entprop_fast.lab.data import ImageData, ImageSet, channels_last, to_float
from entprop_fast.lab.data.datasets import EMBEDDED
from entprop_fast.lab.evaluation.choose_suite import usual_batch_size, usual_scale
from entprop_fast.lab.evaluation.metrics import hscore
from entprop_fast.lab.evaluation.running_metrics import RunningMetrics
from entprop_fast.lab.evaluation.saved_counts import EvaluationCounts
from entprop_fast.logits import logits_of

SEVERITY = 3
# One of each family; for digits, whose ten kinds are others, as far apart.
KINDS = ("gaussian_noise", "defocus_blur", "fog", "contrast", "jpeg_compression")
DIGITS_KINDS = ("gaussian", "blur", "contrast", "rotate", "pixelate")

CLEAN = "clean"

Held = tuple[Place, Tensor, Tensor]  # with images and labels
Over = Callable[[Iterable[Held]], Iterator[Held]]


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
        self._made: list[Held] | None = None

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
        """Measure the network in eval mode, in a job all processes; `over` passes the batches on.

        Raises:
            NaNLogits: the network answers NaN or infinity.
        """
        count = self.data.num_test
        seen = {what: RunningMetrics(count, self.device) for what in (CLEAN, *self.kinds)}

        def add(held: Held) -> int:
            place, images, labels = held
            logits = logits_of(model(to_float(images).clone()), len(labels))
            seen[place.kind].add(place.first, logits, labels)
            return len(labels)

        counts = EvaluationCounts()
        counts.begin("held-out images", seen)
        with evaluating(model), torch.no_grad():
            counts.work_through(over(self._batches()), add)
        for what, one in seen.items():
            one.check(f"held-out images, {what}")
        sa, *each = (one.correct / one.total for one in seen.values())
        ra = sum(each) / len(each)
        return HeldOutScore(100 * sa, 100 * ra, 100 * hscore(sa, ra))

    def _batches(self) -> Iterator[Held]:
        if not isinstance(self.data, ImageData):
            yield from self._make()
            return
        if self._made is None:
            self._made = list(self._make())
        yield from self._made

    def _make(self) -> Iterator[Held]:
        """Read each batch once; corrupted images are kept in 8 bits, but for digits."""
        every = itertools.product(self.data.test_starts(self.batch_size), (CLEAN, *self.kinds))
        places = [Place(kind, SEVERITY, first) for first, kind in every]
        for place, images, labels in clean_images(
            dealt(places, by_batch=not isinstance(self.data, ImageData)),
            self.data,
            self.batch_size,
            with_float64(self.device),
            self.workers,
        ):
            if place.kind != CLEAN:
                images = self._corrupted(channels_last(images), place.kind, place.first)
            yield place, channels_last(images.to(self.device)), labels.to(self.device)

    def _corrupted(self, images: Tensor, kind: str, first: int) -> Tensor:
        if self.data.name == EMBEDDED:
            return corrupt(images, kind, SEVERITY, first=first)
        return corrupted_bytes(images, kind, SEVERITY, scale=usual_scale(self.data), first=first)
