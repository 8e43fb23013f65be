"""The paper's metrics: accuracy and Hscore. Fractions in [0, 1]; tables print percent."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from entprop_fast import stopping
from entprop_fast.modes import evaluating


def hscore(sa: float, ra: float) -> float:
    """Harmonic mean of standard and robust accuracy, ``2 SA RA / (SA + RA)``; 0 if both are 0."""
    return 2 * sa * ra / (sa + ra) if sa + ra else 0.0


def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Top-1 accuracy (SA on the clean test set), model in eval mode, training flags restored.

    The host waits for the device once, at the end.

    Args:
        model: from images to logits ``[B, classes]``.
        batches: images ``[B, C, H, W]`` and labels int64 ``[B]``, on the model's device.

    Raises:
        ValueError: there is no image.
    """
    seen = 0
    correct: Tensor | int = 0
    with evaluating(model), torch.no_grad():
        for images, labels in batches:
            seen += len(labels)
            correct += (model(images).argmax(dim=1) == labels).sum()
            stopping.check()
    if not seen:
        raise ValueError("batches hold no image; at least one is needed")
    return int(correct) / seen
