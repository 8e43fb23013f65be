"""Bring pixel values to what a network takes: float in [0, 1], then normalised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalize:
    """``(images - mean) / std``, the constants kept on the device.

    Args:
        mean: one per channel, in image units ([0, 1]).
        std: likewise, positive.
        device: of the images.

    Raises:
        ValueError: lengths that differ, or a std that is not positive.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], device: torch.device | str
    ) -> None:
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(
                f"mean {tuple(mean)} and std {tuple(std)} must be as many, std above 0"
            )
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)
            for values in (mean, std)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise floating images ``[B, C, H, W]``; their dtype and layout are kept."""
        return (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)


def to_float(images: Tensor) -> Tensor:
    """Make uint8 images float32 in [0, 1], bit for bit as torchvision; leave floating ones.

    Raises:
        ValueError: another dtype.
    """
    if images.is_floating_point():
        return images
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}; uint8 or a floating dtype is needed")
    return images.float().div_(255)
