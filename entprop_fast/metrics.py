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
    return _correct(model, batches) / len(labels)


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


def _correct(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    """How many rows the model gets right; the host waits once, at the end."""
    with evaluating(model), torch.no_grad():
        return int(sum((model(x).argmax(dim=1) == y).sum() for x, y in batches))


def _slices(rows: int, batch_size: int) -> Iterator[slice]:
    return (slice(first, first + batch_size) for first in range(0, rows, batch_size))
