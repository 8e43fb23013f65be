"""A small augmentation for tests of what applies them: each image by a number of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from entprop_fast.augment import Augmentation
from entprop_fast.counter_random import uniforms
from entprop_fast.options import option


@dataclass(frozen=True, kw_only=True)
class Darker(Augmentation):
    """Darken each image by a share of its own, at most `most`."""

    name: ClassVar[str] = "darker"
    most: float = option(0.5, "The largest share.", low=0, high=1)

    def apply(self, images: Tensor, keys: Tensor) -> Tensor:
        share = 1 - self.most * uniforms(keys, 1)[:, :, None, None]
        return (images * share).to(images.dtype)
