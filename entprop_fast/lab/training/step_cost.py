"""Measure what one step of a run takes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import torch

from entprop_fast.capture.shapes import WARM_UP
from entprop_fast.lab import stopping
from entprop_fast.lab.data.loader import Batch
from entprop_fast.lab.evaluation import metrics
from entprop_fast.lab.training.epoch_scores import GAP_IMAGES
from entprop_fast.lab.training.errors import fitting
from entprop_fast.lab.training.trainer import Trainer


@dataclass(frozen=True)
class StepCost:
    """Hold what was measured.

    Attributes:
        seconds: of an optimiser step.
        captured: it was a replay of a CUDA graph.
        memory: bytes: the highest so far, of the device on CUDA, else of this process.
        epoch_seconds: of the accuracies after an epoch, by one batch of test images.
    """

    seconds: float
    captured: bool
    memory: int
    epoch_seconds: float


def measure(trainer: Trainer) -> StepCost:
    """Take a few steps of a run in memory and measure the last one; the run is spoilt by that.

    Raises:
        RunFailed, ValueError: settings, network and data do not fit together.
    """
    batches = _batches(trainer)
    warm_up = WARM_UP + 1 if trainer.device.type == "cuda" else 1
    with fitting(trainer.config.arch, trainer.images.image_shape, trainer.config.dataset):
        for _ in range(warm_up):
            _step(trainer, batches)
        seconds = _step(trainer, batches)
        epoch_seconds = _accuracies(trainer)
    return StepCost(seconds, trainer.captured, _memory(trainer.device), epoch_seconds)


def _batches(trainer: Trainer) -> Iterator[Batch]:
    for epoch in count():
        yield from trainer.loader.epoch(epoch)


def _step(trainer: Trainer, batches: Iterator[Batch]) -> float:
    """Take an optimiser step, with what belongs to it; return its seconds."""
    stopping.check()
    began = time.monotonic()
    group = trainer.accumulation
    for number, (images, labels) in enumerate(islice(batches, min(group.batches, group.epoch))):
        group.take(number, images, labels)
    if trainer.average is not None:
        trainer.average.update()
    _wait(trainer.device)
    return time.monotonic() - began


def _accuracies(trainer: Trainer) -> float:
    """Return the seconds that the accuracies after an epoch take, from one batch."""
    batch = next(trainer.test.batches(), None) if trainer.images.num_test else None
    if batch is None:
        return 0.0
    began = time.monotonic()
    metrics.accuracy(trainer.evaluated, [batch])
    of_one = (time.monotonic() - began) / len(batch[1])
    held_out = trainer.validation.images if trainer.validation is not None else 0
    seen = min(GAP_IMAGES, trainer.images.num_train) + trainer.images.num_test + held_out
    return of_one * seen


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
