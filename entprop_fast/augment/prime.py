"""Augment by PRIME: random warps, curves and filters of maximum entropy, chained and mixed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.drawn_chains import DEEPEST, depth_option, width_option
from entprop_fast.augment.mixing_weights import beta, dirichlet
from entprop_fast.counter_random import bits, keys_of, uniforms
from entprop_fast.ops.layout import same_layout
from entprop_fast.ops.prime_chains import Primitive, prime_chains
from entprop_fast.options import option

_MIX, _KEEP, _DEPTHS, _SLOTS = 1, 2, 3, 4  # streams of an image's draws
_LOWEST_CUT = 2  # diffeo.cutmin of every config


class _Published(NamedTuple):
    cut: int
    temperature: float
    bandwidth: int


# config/cifar10_cfg.py and cifar100_cfg.py (diffeo.cutmax, color_jit.cut, .T, .max_freqs), and
# config/imagenet_cfg.py and imagenet100_cfg.py. Bandwidth 0: all frequencies up to the cut.
_SCALES = {
    "cifar": _Published(cut=100, temperature=0.01, bandwidth=0),
    "imagenet": _Published(cut=500, temperature=0.05, bandwidth=20),
}
_OF_SCALE = "None: as published for the scale."


class Strengths(NamedTuple):
    """Hold what is drawn for each primitive of an image's chains; see `ops.prime_chains`.

    Attributes:
        codes: uint8 [B, width, depth].
        keys: int64 [B, width, depth].
        bands: int32 [B, width, depth, 2].
        scale: float32 [B, width, depth].
        weights: float32 [B, width], of the chains.
        keep: float32 [B], of the image itself.
    """

    codes: Tensor
    keys: Tensor
    bands: Tensor
    scale: Tensor
    weights: Tensor
    keep: Tensor


@dataclass(frozen=True, kw_only=True)
class Prime(Augmentation):
    """Augment as PRIME does (Modas et al., ECCV 2022).

    Each of `width` chains applies 1 to 3 primitives: a smooth warp, a random curve for each channel
    or a random filter. The chains are mixed by Dirichlet(1) weights, and their mixture with the
    image by a uniform one. Published for CIFAR with the consistency loss, `jsd=12`, and for
    ImageNet without::

        augment = Prime()  # or Prime(scale="imagenet")
        augment(images, ids, epoch=3)

    Laws and settings are those of github.com/amodas/PRIME-augmentations as its train.py runs it,
    where the strengths of all three primitives are drawn anew at each call (``stochastic=True``).
    It draws them once for a batch, and one warp for all its images; here each image has its own, so
    that a picture's law is the same. Images need not be square.
    """

    name: ClassVar[str] = "prime"

    scale: Literal["cifar", "imagenet"] = option("cifar", "Whose published strengths are taken.")
    width: int = width_option()
    depth: int = depth_option()
    warp_cut: int | None = option(
        None, f"Highest frequency of a warp, above 2. {_OF_SCALE}", low=3, high=4096
    )
    warp_alpha: float = option(
        1.0, "Highest temperature of a warp, over that where it would fold.", low=0, high=4
    )
    color_cut: int | None = option(
        None, f"Highest frequency of a curve. {_OF_SCALE}", low=1, high=4096
    )
    color_temperature: float | None = option(
        None, f"Largest variance of a curve's amplitudes. {_OF_SCALE}", low=0
    )
    color_bandwidth: int | None = option(
        None, f"Frequencies of a curve; 0: all up to the cut. {_OF_SCALE}", low=0
    )
    filter_size: int = option(3, "Side of a filter.", unit="pixels", choices=(3, 5, 7))
    filter_sigma: float = option(4.0, "Largest standard deviation of a filter's entries.", low=0)

    def apply(self, images: Tensor, keys: Tensor) -> Tensor:
        """Augment checked images by the draws of their keys."""
        drawn = self.draw(keys, (images.shape[2], images.shape[3]))
        levels = images if images.dtype == torch.uint8 else images.float().clamp(0, 1)
        highest = max(self._warp_cut, self._color.cut)
        changed = prime_chains(levels, *drawn, highest, self.filter_size)
        return same_layout(changed.to(images.dtype), images)

    def draw(self, keys: Tensor, size: tuple[int, int]) -> Strengths:
        """Draw what is done to the images of these keys, which are `size` (H, W) large."""
        depth = self.depth if self.depth > 0 else DEEPEST
        mixed = beta(keys_of(_KEEP, keys), 1)
        weights = mixed[:, None] * dirichlet(keys_of(_MIX, keys), 1, self.width)
        shape = (len(keys), self.width, depth)
        slots = bits(keys_of(_SLOTS, keys), 2 * self.width * depth)
        strengths, primitives = slots.unflatten(1, (2, -1)).unbind(1)
        codes, bands, scale = self._strengths(strengths.flatten(), size)
        codes = codes.view(shape).to(torch.uint8)
        if self.depth < 0:
            depths = (uniforms(keys_of(_DEPTHS, keys), self.width) * DEEPEST).ceil()
            # Beyond a chain's depth stands 0, the identity.
            codes = codes * (torch.arange(depth, device=keys.device) < depths[..., None])
        return Strengths(
            codes=codes,
            keys=primitives.reshape(shape),
            bands=bands.view(*shape, 2),
            scale=scale.view(shape),
            weights=weights,
            keep=1 - mixed,
        )

    def _strengths(self, slots: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return code, band and scale of the primitive of each key."""
        u = uniforms(slots, 4)
        codes = 1 + (u[:, 0] * 3).floor()
        cut, temperature = _warp(u[:, 1:], self._warp_cut, self.warp_alpha, size)
        first, last, variance = _color(u[:, 1:], self._color)
        # As integers: torch.compile takes no tensor for equal to a member of an enumeration.
        is_warp, is_color = (codes == int(one) for one in (Primitive.WARP, Primitive.COLOR))
        sigma = u[:, 1] * self.filter_sigma
        bands = torch.stack((first.where(is_color, 1.0), last.where(is_color, cut)), dim=-1)
        scale = torch.where(is_warp, temperature, variance).sqrt()
        return codes, bands.to(torch.int32), torch.where(is_warp | is_color, scale, sigma)

    @property
    def _warp_cut(self) -> int:
        return _SCALES[self.scale].cut if self.warp_cut is None else self.warp_cut

    @property
    def _color(self) -> _Published:
        published = _SCALES[self.scale]
        cut, temperature, bandwidth = self.color_cut, self.color_temperature, self.color_bandwidth
        return _Published(
            cut=published.cut if cut is None else cut,
            temperature=published.temperature if temperature is None else temperature,
            bandwidth=published.bandwidth if bandwidth is None else bandwidth,
        )


def _warp(u: Tensor, highest: int, alpha: float, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return cut and temperature of warps (utils/diffeomorphism.py, Diffeo.forward).

    The configs' sT = rT = scut = rcut = 1 make both Beta laws Beta(1/2, 1/2), the arcsine law.
    """
    limit = _LOWEST_CUT + 1 + (u[:, 0] * (highest - _LOWEST_CUT)).floor()
    cut = _LOWEST_CUT + (_arcsine(u[:, 1]) * (limit + 1 - _LOWEST_CUT)).floor()
    cut = torch.minimum(cut, limit)
    low = 1 / (math.pi * size[0] * size[1] * cut.log())  # moves the middle by half a pixel
    high = 4 * alpha / (math.pi**3 * cut.square() * cut.log())  # above it the image folds
    return cut, low + _arcsine(u[:, 2]) * (high - low).clamp(min=0)


def _color(u: Tensor, published: _Published) -> tuple[Tensor, Tensor, Tensor]:
    """Return first and last frequency and variance of curves (utils/color_jitter.py)."""
    cut = 1 + (u[:, 0] * published.cut).floor()
    first, last = torch.ones_like(cut), cut
    if published.bandwidth:
        first = 1 + (u[:, 1] * cut).floor()
        last = torch.minimum(first + (published.bandwidth - 1), cut)
    return first, last, u[:, 2] * published.temperature


def _arcsine(u: Tensor) -> Tensor:
    return (u * (math.pi / 2)).sin().square()
