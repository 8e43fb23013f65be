"""Do on 8-bit levels what the originals do on 8-bit pictures, also for floating images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from entprop_fast.ops.layout import memory_format, same_layout


def on_levels(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return changed images of the dtype and memory format of `images`.

    Args:
        images: [B, C, H, W], uint8, or floating in [0, 1]: rounded to 256 levels on the way.
        change: of uint8 images, contiguous or channels_last, to such of the same shape.
    """
    dense = images.contiguous(memory_format=memory_format(images))
    if images.dtype == torch.uint8:
        return same_layout(change(dense), images)
    wide = _wide(dense)
    levels = change(to_levels(wide))
    return same_layout((levels.to(wide.dtype) / 255).to(images.dtype), images)


def to_levels(images: Tensor) -> Tensor:
    """Round floating images in [0, 1] to 256 levels, uint8; values beyond are the nearest ones."""
    return (_wide(images) * 255 + 0.5).floor().clamp(0, 255).to(torch.uint8)


def _wide(images: Tensor) -> Tensor:
    return images if images.element_size() >= 4 else images.float()  # half has no 255 / 256
