"""Mix images with pictures of fractals: PixMix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.mixing_set import check_path, pictures_of
from entprop_fast.augment.on_levels import to_levels
from entprop_fast.augment.sampled_levels import operations
from entprop_fast.counter_random import uniforms
from entprop_fast.ops.image_chains import image_chains
from entprop_fast.ops.layout import is_channels_last, memory_format, same_layout
from entprop_fast.ops.pixmix_rounds import Mixing, pixmix_rounds
from entprop_fast.options import option

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
        u = uniforms(keys, _IMAGE + _ROUND * self.k + _COPY * (self.k + 1))
        one, rounds, copies = u.split((_IMAGE, _ROUND * self.k, _COPY * (self.k + 1)), 1)
        rounds = rounds.view(len(keys), self.k, _ROUND)
        count = _below(one[:, 0], self.k + 1)
        active = torch.arange(self.k, device=images.device) < count[:, None]  # [B, k]
        augmented = torch.cat((one[:, 1:2] < 0.5, (rounds[:, :, 0] < 0.5) & active), 1)
        whole = images.dtype == torch.uint8
        exact = torch.float64 if images.dtype == torch.float64 else torch.float32
        dense = images.contiguous(memory_format=memory_format(images))
        levels = dense if whole else to_levels(dense)
        # An image is a row of its values, in their order in memory: k + 1 copies, and a picture.
        pool = _rows(self._pool(levels, copies, augmented, self._pictures(levels, one)))
        copy = torch.arange(self.k + 1, device=u.device)
        place = torch.where(augmented, copy, self.k + 1) * len(keys)
        number = place + torch.arange(len(keys), device=u.device)[:, None]
        number[:, 0] = torch.where(augmented[:, 0], number[:, 0], -1)
        codes = torch.where(rounds[:, :, 1] < 0.5, int(Mixing.MULTIPLY), int(Mixing.ADD)) * active
        weights = torch.stack(sampled_weights(rounds[:, :, 2:], self.beta), 2)
        given = _rows(dense)
        if len(keys) > 0:
            made = pixmix_rounds(
                given if whole else given.to(exact), pool, number, codes.to(torch.uint8), weights
            )
            given = made.to(images.dtype)
        return same_layout(_images(given, dense), images)

    def _pool(self, levels: Tensor, u: Tensor, wanted: Tensor, pictures: Tensor) -> Tensor:
        """Return k + 1 copies, augmented by one operation where wanted, then the pictures.

        The first copies of all images come first, and so on: ``[(k + 2) B, C, H, W]``.
        """
        height, width = levels.shape[2:]
        drawn = u.view(len(u), self.k + 1, _COPY).transpose(0, 1).flatten(0, 1)
        codes, strengths = operations(
            *drawn.unbind(1), severity=self.severity, all_ops=self.all_ops, size=(height, width)
        )
        codes = functional.pad(codes * wanted.t().flatten(), (0, len(u)))  # 0: as they are
        strengths = functional.pad(strengths, (0, len(u)))
        images = torch.cat((*[levels] * (self.k + 1), pictures))
        weights, none = torch.ones_like(strengths)[:, None], torch.zeros_like(strengths)
        return image_chains(images, codes[:, None, None], strengths[:, None, None], weights, none)

    def _pictures(self, levels: Tensor, u: Tensor) -> Tensor:
        """Return a crop of a picture for each image, in the images' layout."""
        channels, height, width = levels.shape[1:]
        side = round(_LARGER * max(height, width))
        last = is_channels_last(levels)
        kept = pictures_of(self.mixing_set, self.pictures, side, channels, last, levels.device)
        number = _below(u[:, 2], len(kept))
        top, left = _below(u[:, 3], side - height + 1), _below(u[:, 4], side - width + 1)
        y = top[:, None] + torch.arange(height, device=levels.device)  # [B, H]
        # Whole lines are read: all that start at any pixel are there as overlapping views.
        if last:
            lines: Tensor = kept.flatten(2).unfold(2, width * channels, channels)
            crops = lines[number[:, None], y, left[:, None]]  # [B, H, W C]
            return crops.view(-1, height, width, channels).permute(0, 3, 1, 2)
        channel = torch.arange(channels, device=levels.device)[:, None]
        lines = kept.unfold(3, width, 1)
        return lines[number[:, None, None], channel, y[:, None], left[:, None, None]]


def sampled_weights(u: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return the published ``get_ab``: a copy is added, or taken away from more of the image.

    A Beta(beta, 1) number is U^(1 / beta), a Beta(1, beta) one 1 - U^(1 / beta).

    Args:
        u: uniform numbers ``[..., 3]``.
        beta: of the law.
    """
    away = u[..., 0] >= 0.5
    a, b = u[..., 1] ** (1 / beta), 1 - u[..., 2] ** (1 / beta)
    return torch.where(away, 2 - a, a), torch.where(away, -b, b)


def _below(u: Tensor, count: int) -> Tensor:
    """Return integers below the count: u, in (0, 1), times it may round up to it."""
    return (u * count).long().clamp(max=count - 1)


def _rows(images: Tensor) -> Tensor:
    """Return dense images as rows of values in their order in memory, ``[B, values]``."""
    return (images.permute(0, 2, 3, 1) if is_channels_last(images) else images).flatten(1)


def _images(rows: Tensor, like: Tensor) -> Tensor:
    """Return what `_rows` made rows of, in the dense layout of `like`."""
    if is_channels_last(like):
        return rows.view(like.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
    return rows.view(like.shape)
