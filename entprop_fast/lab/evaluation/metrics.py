"""Measure accuracy and Hscore, the paper's metrics: fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from entprop_fast.eval_mode import evaluating
from entprop_fast.lab import in_step
from entprop_fast.lab.job import current
from entprop_fast.logits import logits_of


class NaNLogits(ValueError):
    """A network that answers NaN or infinity: such an answer is no class, and would count as 0."""

    def __init__(self, broken: int, images: int, what: str = "images") -> None:
        super().__init__(
            f"the network gives logits that are NaN or infinite for {broken} of {images} {what}: "
            "their class is not defined"
        )


def hscore(sa: float, ra: float) -> float:
    """Return the harmonic mean of both accuracies, ``2 SA RA / (SA + RA)``; 0 if both are 0."""
    return 2 * sa * ra / (sa + ra) if sa + ra else 0.0


def broken_rows(logits: Tensor) -> Tensor:
    """Return which rows hold NaN or plus infinity; minus infinity rules a class out."""
    return (logits.isnan() | logits.isposinf()).any(dim=1) | logits.isneginf().all(dim=1)


def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Measure top-1 accuracy (SA on the clean test set) in eval mode; training flags come back.

    The host waits for the device once, at the end. In a job it is the accuracy on the batches of
    all processes.

    Args:
        model: from images to logits ``[B, classes]``, or to an object with ``.logits``.
        batches: images ``[B, C, H, W]`` and labels int64 ``[B]``, on the model's device, of this
            process. They stay as they are, also where the model writes into its input.

    Raises:
        NaNLogits: the network answers NaN or infinity.
        ValueError: there is no image, or the network returns another shape.
        TypeError: it returns neither a tensor nor an object with ``.logits``.
    """
    seen = 0
    counts = torch.zeros(2, dtype=torch.int64)  # right answers, and answers that are none

    def add(batch: tuple[Tensor, Tensor]) -> int:
        nonlocal seen, counts
        images, labels = batch
        logits = logits_of(model(images.clone()), len(labels))
        right = logits.argmax(dim=1) == labels
        counts = counts.to(right.device) + torch.stack((right.sum(), broken_rows(logits).sum()))
        seen += len(labels)
        return len(labels)

    with evaluating(model), torch.no_grad():
        in_step.work_through(batches, add)
    correct, broken, total = current().sums([*counts.tolist(), seen])
    if not total:
        raise ValueError("batches hold no image; at least one is needed")
    if broken:
        raise NaNLogits(int(broken), int(total))
    return correct / total
