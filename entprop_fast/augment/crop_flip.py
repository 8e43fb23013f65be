"""Crop padded images at random, and mirror them: what CIFAR's recipes do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.counter_random import integers
from entprop_fast.ops.layout import same_layout
from entprop_fast.options import option

PaddingMode = Literal["zero", "reflect"]
PADDING_MODES: tuple[PaddingMode, ...] = get_args(PaddingMode)


class Moves(NamedTuple):
    """Hold what was drawn for each image, int64 ``[rows]`` each."""

    top: Tensor  # of the crop, in pixels from the padded image's corner
    left: Tensor
    flipped: Tensor  # 0 or 1

    def of(self, rows: slice) -> Moves:
        """Return the moves of some of the images."""
        return Moves(*(drawn[rows] for drawn in self))


@dataclass(frozen=True, kw_only=True)
class CropFlip(Augmentation):
    """Take a random crop of the padded image, of its own size, and mirror it half of the time.

    As torchvision's ``RandomCrop(size, padding=4)`` and ``RandomHorizontalFlip()``, in one gather::

        CropFlip(padding=2)(images)

    Raises:
        ValueError: (from a batch) a reflected padding that is not smaller than the image.
    """

    name: ClassVar[str] = "crop-flip"
    padding: int = option(
        4,
        "Pixels added on each side before the crop; 0 crops nothing.",
        low=0,
        high=2**15,
        unit="pixels",
    )
    padding_mode: PaddingMode = option(
        "zero",
        'What is added: "zero" is black, as torchvision pads by default; "reflect" mirrors the '
        "image, without repeating its border.",
    )
    flip: bool = option(True, "Mirror left and right with probability 1/2.")

    def apply(self, images: Tensor, keys: Tensor) -> Tensor:
        """Move every image by the draws of its key."""
        every = torch.arange(len(images), device=images.device)
        return same_layout(self.gather(images, every, self.draw(keys)), images)

    def draw(self, keys: Tensor) -> Moves:
        """Draw the moves of the images with these keys (`counter_random.keys_of`)."""
        places = 2 * self.padding + 1
        return Moves(*integers(keys, (places, places, 2 if self.flip else 1)))

    def gather(self, images: Tensor, rows: Tensor, moves: Moves) -> Tensor:
        """Move the images ``rows``: one gather, of any dtype and number of channels.

        Args:
            images: ``[N, C, H, W]``; in channels_last a pixel's channels are read together.
            rows: int64 ``[B]``, on the images' device.
            moves: those of the B images.

        Returns:
            ``[B, C, H, W]`` in channels_last, of the images' dtype.

        Raises:
            ValueError: a reflected padding that is not smaller than the image.
        """
        height, width = images.shape[2:]
        if self.padding_mode == "reflect" and self.padding >= min(height, width):
            raise ValueError(
                f"padding={self.padding} cannot reflect images of {height}x{width}: "
                f"at most {min(height, width) - 1}"
            )
        y = self._source(moves.top, 0, height)  # [B, H]
        x = self._source(moves.left, moves.flipped, width)  # [B, W]
        reach_y, reach_x = (self._inside(y, height), self._inside(x, width))
        pixels = images.permute(0, 2, 3, 1)
        moved = pixels[rows[:, None, None], reach_y[:, :, None], reach_x[:, None, :]]  # NHWC
        if self.padding and self.padding_mode == "zero":
            moved = _blackened(moved, reach_y != y, reach_x != x)
        return moved.permute(0, 3, 1, 2)

    def _source(self, start: Tensor, flipped: Tensor | int, size: int) -> Tensor:
        """Return where each place of the result comes from, ``[B, size]``; outside where padded."""
        places = torch.arange(size, device=start.device)
        if isinstance(flipped, Tensor) and self.flip:
            first, step = flipped * (size - 1), 1 - 2 * flipped
            places = first[:, None] + step[:, None] * places
        return places + (start[:, None] - self.padding)

    def _inside(self, source: Tensor, size: int) -> Tensor:
        """Return the pixels to read: the mirrored ones, or any where zero will be put."""
        if self.padding_mode == "reflect":
            return (size - 1) - ((size - 1) - source.abs()).abs()
        return source.clamp(0, size - 1)


def _blackened(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Put zero into those rows ``[B, H]`` and columns ``[B, W]`` of pixels ``[B, H, W, C]``.

    Along whole lines of W*C values: a loop over 3 channels takes a CPU several times as long.
    """
    lines = pixels.flatten(2)  # a view, where the pixels are contiguous
    values = columns[:, :, None].expand(-1, -1, pixels.shape[3]).flatten(1)  # [B, W*C]
    outside = rows[:, :, None] | values[:, None, :]
    return lines.masked_fill(outside, 0).view(pixels.shape)
