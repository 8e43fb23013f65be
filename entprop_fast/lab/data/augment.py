"""Augment whole batches on their device: crop, flip, to float, normalise.

The host decides nothing, and each image's draws are a function of its own key, so an image is
augmented the same way on every device, in any batch and after any resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from entprop_fast.counter_random import integers
from entprop_fast.name_errors import unknown

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


@dataclass(frozen=True)
class Augment:
    """Random crop of the padded image, back to its size, and random horizontal flip.

    Args:
        padding: pixels added on each side before the crop; 0: no crop.
        padding_mode: ``zero``, as torchvision's ``RandomCrop`` pads by default (black, before any
            normalisation), or ``reflect``, which does not repeat the border.
        flip: mirror left and right with probability 1/2.

    Raises:
        ValueError: a negative padding, or an unknown ``padding_mode``.
    """

    padding: int = 4
    padding_mode: PaddingMode = "zero"
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"padding = {self.padding} must be 0 or more")
        if self.padding_mode not in PADDING_MODES:
            raise unknown("padding_mode", self.padding_mode, PADDING_MODES)

    def draw(self, keys: Tensor) -> Moves:
        """Draw the moves of the images with these keys (`counter_random.keys_of`)."""
        places = 2 * self.padding + 1
        return Moves(*integers(keys, (places, places, 2 if self.flip else 1)))

    def __call__(self, images: Tensor, rows: Tensor, moves: Moves) -> Tensor:
        """Move the images ``rows``: one gather, of any dtype.

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
                f"padding = {self.padding} cannot reflect images of {height}x{width}: "
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


RESIZED_CROP = "resized-crop-flip"

# What a setting can name, and what of it is done on the device; None: nothing. Crops of images of
# any size are made where those are read (`entprop_fast.lab.data.image_files`).
AUGMENTS: dict[str, Augment | None] = {"none": None, "crop-flip": Augment(), RESIZED_CROP: None}


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
