"""Convert from image units (eps = 4/255 of a [0, 1] image) to those in which the images arrive."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Channels = float | Sequence[float]


class Ball(NamedTuple):
    """Say how far a perturbation may go, each [C], in the units and dtype of the images.

    Attributes:
        alpha: its step.
        eps: its radius.
        low: lowest value of an image.
        high: highest value of an image.
    """

    alpha: Tensor
    eps: Tensor
    low: Tensor
    high: Tensor


class ImageUnits:
    """Hold the range of the images and their normalisation ``(x - mean) / std``, per channel.

    Args:
        input_range: lowest and highest value of an image before normalisation.
        normalization: (mean, std) that the images went through, each a float or one per channel.

    Raises:
        ValueError: an empty range, a std that is not positive, or lengths that differ.
    """

    def __init__(
        self,
        input_range: tuple[float, float],
        normalization: tuple[Channels, Channels] | None,
    ) -> None:
        ends = _floats("input_range", input_range)
        if len(ends) != 2 or not ends[0] < ends[1]:
            raise ValueError(f"input_range={input_range!r}: expected (low, high) with low < high")
        mean: tuple[float, ...] = (0.0,)
        std: tuple[float, ...] = (1.0,)
        if normalization is not None:
            if not isinstance(normalization, Sequence) or len(normalization) != 2:
                raise ValueError(f"normalization={normalization!r}: expected (mean, std) or None")
            mean, std = (_floats("normalization", part) for part in normalization)
        if len(mean) != len(std) and 1 not in (len(mean), len(std)):
            raise ValueError(f"normalization: {len(mean)} means and {len(std)} stds")
        if not all(s > 0 for s in std):
            raise ValueError(f"normalization: std={std!r}, expected positive numbers")
        self.channels = max(len(mean), len(std))  # 1: the same for every channel
        self.input_range, self.normalization = (ends[0], ends[1]), normalization
        self._mean, self._std = mean, std
        self._cache: dict[tuple[object, ...], Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tensors out: a copy may be loaded onto another device."""
        return self.__dict__ | {"_cache": {}}

    def ball(self, alpha: float, eps: float, like: Tensor) -> Ball:
        """Return step and radius in image units, and the range, as tensors for `like`."""
        return Ball(self.distance(alpha, like), self.distance(eps, like), *self.bounds(like))

    def distance(self, value: float, like: Tensor) -> Tensor:
        """Return a distance in image units, as [C] in the units and dtype of `like`."""
        return self._tensor(value, 0.0, like)

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and highest value of an image as [C] in the units of `like`."""
        low, high = self.input_range
        return self._tensor(low, 1.0, like), self._tensor(high, 1.0, like)

    def to_image_units(self, value: Tensor) -> Tensor:
        """Return values [channels or C] in the images' units back in image units."""
        return value * value.new_tensor(self._std) + value.new_tensor(self._mean)

    def _tensor(self, value: float, shift: float, like: Tensor) -> Tensor:
        # Kept, so that a step copies nothing from host to device.
        n = like.shape[1]
        key = (value, shift, n, like.dtype, like.device)
        if key not in self._cache:
            mean, std = (part * n if len(part) == 1 else part for part in (self._mean, self._std))
            scaled = [(value - shift * m) / s for m, s in zip(mean, std, strict=True)]
            self._cache[key] = torch.tensor(scaled, dtype=like.dtype, device=like.device)
        return self._cache[key]


def input_range(value: Any) -> tuple[float, float]:
    """Return the lowest and highest value of an image as floats.

    Raises:
        ValueError: no two numbers, the lower one first.
    """
    return ImageUnits(value, None).input_range


def normalization(value: Any) -> tuple[Channels, Channels] | None:
    """Return (mean, std) or None as given.

    Raises:
        ValueError: no such pair, or a std that is not positive.
    """
    return ImageUnits((0.0, 1.0), value).normalization


def _floats(name: str, value: object) -> tuple[float, ...]:
    items: Any = value.tolist() if isinstance(value, Tensor) else value
    try:
        numbers = tuple(float(item) for item in (items if isinstance(items, Sequence) else [items]))
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r}: expected numbers") from None
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name}={value!r}: expected finite numbers")
    return numbers
