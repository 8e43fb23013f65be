"""Measure a network at the end of an epoch, and tell how far that is."""

from __future__ import annotations

import math

from torch import nn

from entprop_fast.lab.data import ImageSet, Loader
from entprop_fast.lab.evaluation import metrics
from entprop_fast.lab.job import current
from entprop_fast.lab.report.progress import EVERY, Reporter
from entprop_fast.lab.training.run_images import TestSet
from entprop_fast.lab.training.validation import Validation

GAP_IMAGES = 2000  # training images behind the train-test gap: its standard error is 1 point


def accuracies(
    network: nn.Module, loader: Loader, test: TestSet, data: ImageSet, reporter: Reporter
) -> tuple[float, float]:
    """Measure accuracy on the first training images and on the test images, in percent.

    The latter is NaN where there are none. Each process of a job measures its batches.
    """
    job = current()
    seen = loader.first_batches(GAP_IMAGES, test.batch_size, job.own)
    images = (min(GAP_IMAGES, data.num_train) + data.num_test) // job.world
    with reporter.task("accuracy of the epoch", images, first=EVERY) as task:
        train_accuracy = 100 * metrics.accuracy(network, task.over(seen))
        if not data.num_test:
            return train_accuracy, math.nan
        return train_accuracy, 100 * metrics.accuracy(network, task.over(test.batches(job.own)))


def held_out(
    network: nn.Module, validation: Validation | None, reporter: Reporter
) -> dict[str, float]:
    """Return what a row holds of held-out images; nothing where there are none."""
    if validation is None:
        return {}
    what = "accuracy on held-out images"
    with reporter.task(what, validation.images // current().world, first=EVERY) as task:
        score = validation.score(network, task.over)
    return {f"validation_{name}": value for name, value in score._asdict().items()}
