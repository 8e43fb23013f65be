"""Make the input of a trained network of an image file, as the evaluation of its run did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from entprop_fast.lab.data.read_image import read_image
from entprop_fast.optional import require

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {1: "L", 3: "RGB"}  # Pillow's, by channels


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize an image until it covers `resize`, cut the middle out, scale values to [0, 1].

    Call it with a file or a Pillow image; it returns float32 ``[channels, height, width]``::

        image = preprocessing("photo.jpg")

    Attributes:
        channels: 1 (grey) or 3 (RGB); others are in no image file.
        height: of the network's input, in pixels.
        width: likewise.
        resize: height and width that the resized image covers, one of them exactly; bilinear, by
            Pillow.
        mean: of each channel, taken off last; empty where the network itself normalises, or none.
        std: of each channel, what is left is divided by it; likewise.
    """

    channels: int
    height: int
    width: int
    resize: tuple[int, int]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __call__(self, image: str | Path | Image) -> Tensor:
        """Return the network's input.

        Raises:
            OSError: the file cannot be read as an image; the message says why.
            ValueError: the network takes neither 1 nor 3 channels.
            ImportError: Pillow is not installed.
        """
        mode = self.mode
        require("PIL", extra="vision", purpose="reading image files")
        opened = read_image(Path(image)) if isinstance(image, str | Path) else image.convert("RGB")
        pixels = np.array(self._cut(opened.convert(mode)), dtype=np.float32) / np.float32(255)
        values = torch.from_numpy(pixels.reshape(self.height, self.width, self.channels))
        values = values.permute(2, 0, 1).contiguous()
        if not self.mean:
            return values
        mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (self.mean, self.std))
        return (values - mean) / std

    @property
    def mode(self) -> str:
        """Pillow's name of the channels.

        Raises:
            ValueError: an image file has no such number of them.
        """
        if self.channels not in MODES:
            raise ValueError(
                f"channels = {self.channels}: an image file has 1 (grey) or 3 (RGB), so give the "
                "network tensors"
            )
        return MODES[self.channels]

    def as_dict(self) -> dict[str, Any]:
        """Return what a program needs that does the same without this package."""
        return {
            "mode": MODES.get(self.channels),
            **asdict(self),
            "range": [0.0, 1.0],
            "interpolation": "bilinear",
        }

    def _cut(self, image: Image) -> Image:
        """Resize and crop as torchvision's ``Resize`` and ``CenterCrop`` do, to the bit."""
        from PIL.Image import Resampling

        width, height = image.size
        cover = max(self.resize[0] * width, self.resize[1] * height)
        image = image.resize((cover // height, cover // width), Resampling.BILINEAR)
        left = round((image.width - self.width) / 2)
        top = round((image.height - self.height) / 2)
        return image.crop((left, top, left + self.width, top + self.height))
