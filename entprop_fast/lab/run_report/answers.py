"""Look at what a network answers on its test images, one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entprop_fast import reference
from entprop_fast.eval_mode import evaluating
from entprop_fast.lab import stopping
from entprop_fast.lab.data import ImageData, ImageFiles, ImageSet, channels_last
from entprop_fast.lab.data.image_files import TransformedFiles, evaluation_transform
from entprop_fast.lab.evaluation.metrics import NaNLogits, broken_rows
from entprop_fast.lab.evaluation.scored_network import Scored
from entprop_fast.lab.run_report.thumbnails import data_uri


@dataclass(frozen=True, kw_only=True)
class Example:
    """Describe a test image and the answer to it.

    Attributes:
        uri: of the image itself.
        number: in the test set, from 0.
        true: its class.
        predicted: the class with the highest probability.
        entropy: of the prediction, in nats.
        probability: of the predicted class.
        probability_true: of the true class.
    """

    uri: str
    number: int
    true: str
    predicted: str
    entropy: float
    probability: float
    probability_true: float


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Hold a network's answers on the clean test images.

    Attributes:
        class_names: of each class.
        confusion: images by true class (rows) and predicted class, ``[classes][classes]``.
        uncertain: the images with the highest entropy, highest first.
        wrong: those whose true class got the lowest probability, lowest first.
    """

    class_names: tuple[str, ...]
    confusion: list[list[int]]
    uncertain: list[Example]
    wrong: list[Example]

    @property
    def images(self) -> int:
        """Return how many test images there are."""
        return sum(map(sum, self.confusion))

    @property
    def correct(self) -> int:
        """Return how many of them were classified right."""
        return sum(row[place] for place, row in enumerate(self.confusion))

    @property
    def most_entropy(self) -> float:
        """Return the entropy of a guess, in nats."""
        return math.log(len(self.class_names))

    @property
    def accuracy(self) -> float:
        """Return the share that was right, in percent."""
        return 100 * self.correct / self.images


def answers_of(
    network: Scored,
    data: ImageSet,
    *,
    batch_size: int,
    workers: int | None,
    shown: int,
    class_names: Sequence[str] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> Answers:
    """Classify all test images.

    Args:
        network: on the device to use.
        data: the data set; the network may have more classes.
        batch_size: images in a forward pass.
        workers: processes that read images, as `entprop_fast.data.ImageFiles.test_batches` has it.
        shown: images of each kind to keep.
        class_names: of the network's outputs, where they are known; empty: the data set's.
        progress: told how many images are behind.

    Raises:
        NaNLogits: the network answers NaN or infinity.
        OSError: an image cannot be read.
    """
    found: list[Tensor] = []  # [B, 5]
    with evaluating(network), torch.no_grad():
        done = 0
        for images, labels in data.test_batches(batch_size, workers=workers):
            logits: Tensor = network(channels_last(images.to(network.device)))
            found.append(_measured(logits.float(), labels.to(network.device)).cpu())
            done += len(labels)
            progress(done)
            stopping.check()
    rows, classes = torch.cat(found), logits.shape[1]
    named = class_names or data.class_names
    names = (*named, *map(str, range(len(named), classes)))[:classes]
    pairs = rows[:, 0].long() * classes + rows[:, 1].long()
    confusion = pairs.bincount(minlength=classes**2).view(classes, -1)
    wrong = (rows[:, 0] != rows[:, 1]).nonzero().flatten()
    most_wrong = wrong[rows[wrong, 4].argsort(stable=True)][:shown]
    uncertain = rows[:, 2].argsort(descending=True, stable=True)[:shown]
    shown_images = _images(data, {*uncertain.tolist(), *most_wrong.tolist()}, batch_size)
    return Answers(
        class_names=names,
        confusion=confusion.tolist(),
        uncertain=_examples(shown_images, rows, uncertain.tolist(), names),
        wrong=_examples(shown_images, rows, most_wrong.tolist(), names),
    )


def _measured(logits: Tensor, labels: Tensor) -> Tensor:
    """Return true and predicted class, entropy, and both classes' probability, ``[B, 5]``."""
    if broken := int(broken_rows(logits).sum()):
        raise NaNLogits(broken, len(logits), "images of a batch")
    probabilities = logits.softmax(dim=1)
    predicted = logits.argmax(dim=1)
    of_class = [probabilities.gather(1, one[:, None]).flatten() for one in (predicted, labels)]
    columns = (labels.float(), predicted.float(), reference.entropy(logits), *of_class)
    return torch.stack(columns, dim=1)


def _examples(
    images: Mapping[int, Tensor], rows: Tensor, numbers: Sequence[int], names: Sequence[str]
) -> list[Example]:
    return [
        Example(
            uri=data_uri(images[number]),
            number=number,
            true=names[int(true)],
            predicted=names[int(predicted)],
            entropy=entropy,
            probability=probability,
            probability_true=of_true,
        )
        for number, (true, predicted, entropy, probability, of_true) in zip(
            numbers, rows[numbers].tolist(), strict=True
        )
    ]


def _images(data: ImageSet, numbers: Collection[int], batch_size: int) -> dict[int, Tensor]:
    """Read some test images again, ``[C, H, W]``, as the network saw them."""
    if isinstance(data, ImageFiles):
        files = TransformedFiles(data.test, evaluation_transform(data.image_size))
        return {number: files[number][0] for number in numbers}
    if isinstance(data, ImageData):
        return {number: data.test_images[number] for number in numbers}
    found, first = {}, 0  # somebody's own loader, which has no other way in
    for images, _ in data.test_batches(batch_size):
        found |= {n: images[n - first] for n in numbers if first <= n < first + len(images)}
        first += len(images)
    return found
