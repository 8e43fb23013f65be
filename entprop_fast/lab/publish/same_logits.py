"""Check that what was exported answers as the network does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from entprop_fast.eval_mode import evaluating
from entprop_fast.lab.training.errors import RunFailed
from entprop_fast.logits import logits_of

TOLERANCE = 1e-5  # of the largest logit

_ROWS = (1, 3)  # neither is the number that was recorded


def largest_difference(
    network: nn.Module, exported: Callable[[Tensor], Tensor], shape: tuple[int, int, int], what: str
) -> float:
    """Compare logits on random images in [0, 1], of batches of 1 and 3.

    Args:
        network: plain, on the CPU.
        exported: from images to logits.
        shape: ``(C, H, W)`` of the images.
        what: was exported, for the message.

    Returns:
        The largest difference, divided by the largest logit.

    Raises:
        RunFailed: it is above `TOLERANCE`, or not a number.
    """
    generator = torch.Generator().manual_seed(0)
    found = 0.0
    for rows in _ROWS:
        images = torch.rand(rows, *shape, generator=generator)
        with evaluating(network), torch.inference_mode():
            expected = logits_of(network(images), rows).float()
            given = exported(images).float()
        if given.shape != expected.shape:
            raise RunFailed(
                f"{what} gives {list(given.shape)} for {rows} images, the network "
                f"{list(expected.shape)}: nothing was written"
            )
        scale = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
        difference = float((given - expected).abs().max() / scale)
        if not difference <= TOLERANCE:  # or NaN
            raise RunFailed(
                f"{what} differs from the network by {difference:.1e} of its largest logit, more "
                f"than {TOLERANCE:g}: nothing was written"
            )
        found = max(found, difference)
    return found
