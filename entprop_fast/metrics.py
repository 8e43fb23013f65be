"""The paper's metrics: SA, RA and Hscore. Fractions in [0, 1]; tables print percent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from entprop_fast.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from entprop_fast.data.loader import check_batching
from entprop_fast.modes import evaluating
from entprop_fast.names import unknown


def hscore(sa: float, ra: float) -> float:
    """Harmonic mean of standard and robust accuracy, ``2 SA RA / (SA + RA)``; 0 if both are 0."""
    return 2 * sa * ra / (sa + ra) if sa + ra else 0.0


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> float:
    """Top-1 accuracy (SA on the clean test set), model in eval mode, training flags restored.

    Args:
        model: from images to logits ``[N, classes]``.
        images: ``[N, C, H, W]``, on the model's device.
        labels: int64 ``[N]``, on the same device.
        batch_size: images in a forward pass.

    Raises:
        ValueError: no images, lengths that differ, or ``batch_size`` below 1.
    """
    check_batching(images, labels, batch_size)
    batches = ((images[rows], labels[rows]) for rows in _slices(len(labels), batch_size))
    return accuracy_over(model, batches)


def accuracy_over(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """:func:`accuracy` of images that come in batches, on the model's device.

    Raises:
        ValueError: there is no image.
    """
    seen = 0

    def counted() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal seen
        for images, labels in batches:
            seen += len(labels)
            yield images, labels

    correct = _correct(model, counted())
    if not seen:
        raise ValueError("batches hold no image; at least one is needed")
    return correct / seen


def robust_accuracy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    seed: int = 0,
    kinds: Sequence[str] = CORRUPTIONS,
) -> dict[str, list[float]]:
    """Accuracy under each corruption: kind to five accuracies, severity 1 first.

    RA is the plain mean over all of them. Arguments are :func:`accuracy`'s; the images are clean
    and in [0, 1], and ``seed`` is the corruptions'.

    Raises:
        ValueError: as :func:`accuracy` and :func:`entprop_fast.data.corrupt`; no ``kinds``.
    """
    if not kinds:
        raise ValueError(f"kinds is empty; any of {', '.join(CORRUPTIONS)} wanted")
    for kind in kinds:
        if kind not in CORRUPTIONS:
            raise unknown("corruption", kind, CORRUPTIONS)
    check_batching(images, labels, batch_size)

    def corrupted(kind: str, severity: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in _slices(len(labels), batch_size):
            batch = corrupt(images[rows], kind, severity, seed=seed, first=rows.start)
            yield batch, labels[rows]

    return {
        kind: [_correct(model, corrupted(kind, severity)) / len(labels) for severity in SEVERITIES]
        for kind in kinds
    }


def robust_accuracy_over(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, seed: int = 0
) -> dict[str, list[float]]:
    """:func:`robust_accuracy` of images that come in batches: read once, corrupted in every way.

    The same numbers as from whole tensors, whatever the size of the batches.

    Raises:
        ValueError: there is no image, and as :func:`entprop_fast.data.corrupt`.
    """
    places = [(kind, severity) for kind in CORRUPTIONS for severity in SEVERITIES]
    correct: list[Tensor | int] = [0] * len(places)
    first = 0
    with evaluating(model), torch.no_grad():
        for images, labels in batches:
            for place, (kind, severity) in enumerate(places):
                corrupted = corrupt(images, kind, severity, seed=seed, first=first)
                correct[place] += (model(corrupted).argmax(dim=1) == labels).sum()
            first += len(labels)
    if not first:
        raise ValueError("batches hold no image; at least one is needed")
    shares = [int(count) / first for count in correct]
    by_kind = len(SEVERITIES)
    return {kind: shares[i * by_kind : (i + 1) * by_kind] for i, kind in enumerate(CORRUPTIONS)}


def _correct(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    """How many rows the model gets right; the host waits once, at the end."""
    with evaluating(model), torch.no_grad():
        return int(sum((model(x).argmax(dim=1) == y).sum() for x, y in batches))


def _slices(rows: int, batch_size: int) -> Iterator[slice]:
    return (slice(first, first + batch_size) for first in range(0, rows, batch_size))
