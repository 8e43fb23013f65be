"""Measure a network at the end of an epoch, and tell how far that is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

from torch import nn

from entprop_fast.lab import in_step, job
from entprop_fast.lab.data import ImageSet, Loader
from entprop_fast.lab.data.loader import Batch
from entprop_fast.lab.evaluation import metrics
from entprop_fast.lab.report.progress import EVERY, Reporter
from entprop_fast.lab.training.run_images import TestSet
from entprop_fast.lab.training.validation import Validation

GAP_IMAGES = 2000  # training images behind the train-test gap: its standard error is 1 point


def accuracies(
    network: nn.Module, loader: Loader, test: TestSet, data: ImageSet, reporter: Reporter
) -> tuple[float, float]:
    """Measure accuracy on the first training images and on the test images, in percent.

    The latter is NaN where there are none.
    """
    seen = loader.first_batches(GAP_IMAGES, test.batch_size, dealt=True)
    here = job.current()
    images = min(GAP_IMAGES, data.num_train) + data.num_test
    with reporter.task("accuracy of the epoch", images, first=EVERY) as task:
        train_accuracy = _accuracy(network, task.over(seen))
        if not data.num_test:
            return train_accuracy, math.nan
        own = islice(test.batches(), here.rank, None, here.world)
        return train_accuracy, _accuracy(network, task.over(own))


def _accuracy(network: nn.Module, own: Iterable[Batch]) -> float:
    """Measure accuracy, in percent, on the batches of all processes; these are this one's."""
    with in_step.together():
        counts = metrics.count(network, own)
    seen, correct, broken = map(int, job.current().sums(counts))
    return 100 * metrics.share_of(seen, correct, broken)


def held_out(
    network: nn.Module, validation: Validation | None, reporter: Reporter
) -> dict[str, float]:
    """Return what a row holds of held-out images; nothing where there are none."""
    if validation is None:
        return {}
    what = "accuracy on held-out images"
    with reporter.task(what, validation.images, first=EVERY) as task:
        with in_step.together():
            score = validation.score(network, task.over)
    return {f"validation_{name}": value for name, value in score._asdict().items()}
