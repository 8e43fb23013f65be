"""Say what an augmentation is: a record of options that changes a whole batch on its device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from entprop_fast.counter_random import fold, keys_of
from entprop_fast.ops.tensor_checks import require_images
from entprop_fast.options import check, options_of
from entprop_fast.torch_internals import dispatch_modes_active

_AUGMENT = 1  # the stream of these draws, beside those of a loader's order
_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def image_keys(seed: int, epoch: int, ids: Tensor) -> Tensor:
    """Return the keys of the images with these numbers, int64 as `ids`: what `apply` draws by."""
    return keys_of(fold((seed, epoch, _AUGMENT)), ids)


@dataclass(frozen=True, kw_only=True)
class Augmentation(ABC):
    """Change each image of a batch by draws of its own; the host decides nothing.

    A subclass is a frozen dataclass whose fields are options (`entprop_fast.options.option`), and
    has `apply`::

        augment = AugMix(severity=3)
        augment(images)  # drawn from torch's default generator of the images' device
        augment(images, ids, epoch=3)  # each image's draws are those of (seed, epoch, id) alone

    Attributes:
        name: in a chain, see `entprop_fast.augment.parse_chain`.
        seed: of the draws for images that are given by number.
    """

    name: ClassVar[str]
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every option."""
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise TypeError(f"seed={self.seed!r}: expected an integer")
        for name, about in options_of(type(self)).items():
            object.__setattr__(self, name, check(about, getattr(self, name)))

    def __call__(
        self,
        images: Tensor,
        ids: Tensor | None = None,
        epoch: int = 0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Augment a batch.

        Args:
            images: ``[B, C, H, W]`` with 1 or 3 channels, uint8, or floating in [0, 1]; left as
                they are.
            ids: int64 ``[B]``, the images' numbers in their data set, on their device. With them
                an image is augmented the same way in any batch, on any device; None: draw from
                `generator`.
            epoch: of the draws, with `ids`.
            generator: on the images' device; None: that device's default one.

        Returns:
            ``[B, C, H, W]`` of the images' dtype, device and memory format, without gradient.

        Raises:
            TypeError, ValueError: images, ids or epoch that are not as above, or both `ids` and
                `generator`.
        """
        check_images(images)
        keys = self._keys(images, ids, epoch, generator)
        with torch.no_grad():
            return self.apply(images, keys)

    @abstractmethod
    def apply(self, images: Tensor, keys: Tensor) -> Tensor:
        """Augment checked images by the draws of their keys, int64 ``[B]``, and nothing else."""

    def _keys(
        self,
        images: Tensor,
        ids: Tensor | None,
        epoch: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        if ids is None:
            if generator is not None:
                _check_generator(generator, images.device)
            low, high = -(2**63), 2**63 - 1
            shape, device = (len(images),), images.device
            return torch.randint(low, high, shape, generator=generator, device=device)
        if generator is not None:
            raise ValueError("ids and generator are both given: an image is drawn by one of them")
        if not isinstance(ids, Tensor):
            raise TypeError(f"ids is a {type(ids).__name__}: expected a tensor, int64 [B]")
        if ids.dtype != torch.int64 or ids.shape != (len(images),) or ids.device != images.device:
            raise ValueError(
                f"ids is {ids.dtype} {list(ids.shape)} on {ids.device}: expected int64 "
                f"[{len(images)}] on {images.device}, a number for each image"
            )
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"epoch={epoch!r}: expected an integer of at least 0")
        return image_keys(self.seed, epoch, ids)


def _check_generator(generator: object, device: torch.device) -> None:
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is a {type(generator).__name__}: expected a torch.Generator")
    if generator.device.type != device.type:
        raise ValueError(
            f"generator is on {generator.device}, the images are on {device}: make it with "
            f"torch.Generator(device={device.type!r})"
        )


def check_images(images: Tensor) -> None:
    """Check shape and dtype of images, and on the CPU the values of floating ones.

    No values where a graph is traced.

    Raises:
        TypeError: not a tensor, or of a dtype that images do not have.
        ValueError: another shape, or values outside of [0, 1].
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images is a {type(images).__name__}: expected a tensor [B, C, H, W]")
    if images.dtype not in _DTYPES:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise TypeError(f"images are {images.dtype}: expected one of {expected}")
    require_images(images)
    if torch.compiler.is_compiling() or dispatch_modes_active():  # there may be no values
        return
    if images.is_floating_point() and images.device.type == "cpu" and images.numel():
        low, high = torch.aminmax(images.detach())
        if not (low >= -1e-5 and high <= 1 + 1e-5):
            raise ValueError(f"images reach from {low:g} to {high:g}: expected values in [0, 1]")
