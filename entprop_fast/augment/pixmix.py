"""Mix images with pictures of fractals: PixMix."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.mixing_set import check_path, pictures_of
from entprop_fast.counter_random import uniforms
from entprop_fast.ops.image_chains import ImageOp, image_chains
from entprop_fast.ops.layout import same_layout
from entprop_fast.options import option

# The published code's lists: without, and with, the operations that overlap test corruptions.
_OPS = (
    ImageOp.AUTOCONTRAST,
    ImageOp.EQUALIZE,
    ImageOp.POSTERIZE,
    ImageOp.ROTATE,
    ImageOp.SOLARIZE,
    ImageOp.SHEAR_X,
    ImageOp.SHEAR_Y,
    ImageOp.TRANSLATE_X,
    ImageOp.TRANSLATE_Y,
)
_ALL_OPS = (*_OPS, ImageOp.COLOR, ImageOp.CONTRAST, ImageOp.BRIGHTNESS, ImageOp.SHARPNESS)
_LARGER = 9 / 8  # pictures over images, of which a crop is mixed: 36 to 32 pixels, 256 to 224
_IMAGE, _ROUND, _COPY = 5, 5, 3  # numbers drawn for an image, each round, each augmented copy


@dataclass(frozen=True, kw_only=True)
class PixMix(Augmentation):
    """Add or multiply pictures and augmented copies into each image (Hendrycks et al., CVPR 2022).

    As in the published code (github.com/andyzoujm/pixmix, cifar.py and pixmix_utils.py): start from
    the image or an augmented copy of it; 0 to k times, add or multiply another augmented copy, or
    the mixing picture, which is one for all rounds; weights are from Beta(beta, 1) and
    Beta(1, beta). Defaults are those for CIFAR; for ImageNet `beta` is 4 and `severity` 1::

        PixMix()(images)
        PixMix(mixing_set="pictures/")(images)  # a folder, or .npy or .npz of uint8 [N, H, W, 3]

    Attributes:
        pictures: of our fractals. The published set has 14,230 pictures. They are made when first
            used, or by ``entprop data fractals``, and kept on the images' device.
    """

    name = "pixmix"
    k: int = option(4, "Most rounds of mixing.", low=0, high=16)
    beta: float = option(3.0, "Of the mixing weights: larger mixes less in.", low=0, open_low=True)
    severity: float = option(
        3.0, "Strongest level of the augmented copies.", low=0.1, high=10, unit="of 10"
    )
    all_ops: bool = option(False, "Whether copies also change colour, contrast and sharpness.")
    mixing_set: str | None = option(
        None, "Folder, .npy or .npz of pictures; None: fractals of our own.", parse=check_path
    )
    pictures: int = option(512, "Number of our own fractals.", low=1)

    def apply(self, images: Tensor, keys: Tensor) -> Tensor:
        """Mix each image for its own number of rounds."""
        whole = images.dtype == torch.uint8
        levels = images if whole else (images * 255 + 0.5).to(torch.uint8)
        u = uniforms(keys, _IMAGE + _ROUND * self.k + _COPY * (self.k + 1))
        one, rounds, copies = u.split((_IMAGE, _ROUND * self.k, _COPY * (self.k + 1)), 1)
        rounds = rounds.view(-1, self.k, _ROUND)
        count = _below(one[:, 0], self.k + 1)
        active = torch.arange(self.k, device=images.device) < count[:, None]  # [B, k]
        augmented = torch.cat((one[:, 1:2] < 0.5, (rounds[:, :, 0] < 0.5) & active), 1)
        augments = self._copies(levels, copies.view(-1, self.k + 1, _COPY), augmented)
        picture = self._pictures(levels, one[:, 2:])
        exact = torch.float64 if images.dtype == torch.float64 else torch.float32
        mixed = images.to(exact) / 255 if whole else images.to(exact)
        mixed = torch.where(_each(augmented[:, 0]), augments[0].to(exact) / 255, mixed)
        for k in range(self.k):
            other = torch.where(_each(augmented[:, k + 1]), augments[k + 1], picture)
            result = _mixed(mixed, other.to(exact) / 255, rounds[:, k, 1:].to(exact), self.beta)
            mixed = torch.where(_each(active[:, k]), result, mixed)
        mixed = (mixed * 255 + 0.5).to(torch.uint8) if whole else mixed.to(images.dtype)
        return same_layout(mixed, images)

    def _copies(self, levels: Tensor, u: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
        """Return k + 1 copies ``[B, C, H, W]``, each augmented by one operation where wanted."""
        rows = u.transpose(0, 1).flatten(0, 1)  # [(k + 1) B, draws]: copy after copy
        codes, strengths = self._operations(rows, *levels.shape[2:])
        codes = codes * wanted.t().flatten()
        ones = torch.ones_like(strengths)
        repeated = torch.cat([levels] * u.shape[1])
        chained = image_chains(
            repeated, codes[:, None, None], strengths[:, None, None], ones[:, None], 0 * ones
        )
        return chained.chunk(u.shape[1]) if len(levels) else (levels,) * u.shape[1]

    def _operations(self, u: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return code and strength, ``[rows]`` each, of the numbers drawn, ``[rows, 3]``."""
        ops = _ALL_OPS if self.all_ops else _OPS
        place = _below(u[:, 0], len(ops))
        level = (0.1 + (self.severity - 0.1) * u[:, 1]) / 10
        signed = torch.where(u[:, 2] > 0.5, -1.0, 1.0)
        factor = 1.8 * level + 0.1
        of_op = {
            ImageOp.POSTERIZE: 4 - (4 * level).floor(),
            ImageOp.ROTATE: (30 * level).floor() * signed,
            ImageOp.SOLARIZE: 256 - (256 * level).floor(),
            ImageOp.SHEAR_X: 0.3 * level * signed,
            ImageOp.SHEAR_Y: 0.3 * level * signed,
            ImageOp.TRANSLATE_X: (width / 3 * level).floor() * signed,
            ImageOp.TRANSLATE_Y: (height / 3 * level).floor() * signed,
        }
        each = torch.stack([of_op.get(op, factor) for op in ops], 1)  # [rows, ops]
        return _codes(ops, u.device)[place], each.gather(1, place[:, None])[:, 0]

    def _pictures(self, levels: Tensor, u: Tensor) -> Tensor:
        """Return a crop of a picture for each image, of its layout."""
        channels, height, width = levels.shape[1:]
        side = round(_LARGER * max(height, width))
        kept = pictures_of(self.mixing_set, self.pictures, side, channels, levels.device)
        number = _below(u[:, 0], len(kept))
        y = _below(u[:, 1:2], side - height + 1) + torch.arange(height, device=levels.device)
        x = _below(u[:, 2:3], side - width + 1) + torch.arange(width, device=levels.device)
        crops = kept[number[:, None, None], y[:, :, None], x[:, None, :]]  # [B, H, W, C]
        return same_layout(crops.permute(0, 3, 1, 2), levels)


def _mixed(image: Tensor, other: Tensor, u: Tensor, beta: float) -> Tensor:
    """Add or multiply with random weights, the published ``add``, ``multiply`` and ``get_ab``.

    Of values in [-1, 1]: a x + b y; of values in [0, 2]: x^a y^b, as a power of 2, so that both are
    one sum. A Beta(beta, 1) number is U^(1 / beta), a Beta(1, beta) one 1 - U^(1 / beta).
    """
    multiply, opposite = u[:, 0] < 0.5, u[:, 1] < 0.5
    a, b = u[:, 2] ** (1 / beta), 1 - u[:, 3] ** (1 / beta)
    a, b = torch.where(opposite, 2 - a, a), torch.where(opposite, -b, b)
    shift = torch.where(multiply, a - 1, (1 - a - b) / 2)
    multiplied = _each(multiply)
    image = torch.where(multiplied, image.log2(), image)
    # The published code raises no zero to a power below zero.
    other = torch.where(multiplied, (2 * other).clamp_(min=1e-37).log2_(), other)
    result = image.mul_(_each(a)).addcmul_(other, _each(b)).add_(_each(shift))
    return torch.where(multiplied, result.exp2(), result).clamp_(0, 1)


def _below(u: Tensor, count: int) -> Tensor:
    """Return integers below the count: u, in (0, 1), times it may round up to it."""
    return (u * count).long().clamp(max=count - 1)


@functools.lru_cache(maxsize=16)
def _codes(ops: tuple[ImageOp, ...], device: torch.device) -> Tensor:
    """Return codes on a device, where they stay: a captured graph can copy nothing there."""
    return torch.tensor(ops, dtype=torch.uint8, device=device)


def _each(values: Tensor) -> Tensor:
    """Return one value for each image, ``[B, 1, 1, 1]``."""
    return values[:, None, None, None]
