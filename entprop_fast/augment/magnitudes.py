"""Turn the operations and magnitudes of TrivialAugment and RandAugment into codes and strengths.

As torchvision v2 does it for PIL images (`_AUGMENTATION_SPACE`, `_apply_image_or_video_transform`
of its _auto_augment.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from entprop_fast.ops.image_chains import GEOMETRIC, NEAREST, ImageOp
from entprop_fast.options import option

KINDS = 14  # operations: all codes but invert, the last
_GEOMETRIC, _FACTORS = int(min(GEOMETRIC)), int(ImageOp.BRIGHTNESS)  # the first of each kind


def bins_option() -> Any:
    """Return the option ``num_magnitude_bins``, torchvision's, for a dataclass."""
    return option(31, "Strengths of an operation.", low=2, high=1024)


def interpolation_option() -> Any:
    """Return the option ``interpolation``, torchvision's, for a dataclass."""
    return option("nearest", "How rotations, shears and shifts sample.")


class Space(NamedTuple):
    """Hold the largest magnitude of each operation.

    Attributes:
        shear: of both shears.
        shift: of both shifts, in pixels.
        shift_share: of both shifts, as a share of the image's side, which is added to `shift`.
        degrees: of a rotation.
        factor: how far the factors of brightness, color, contrast and sharpness go from 1.
        bits: that posterize clears.
    """

    shear: float
    shift: float
    shift_share: float
    degrees: float
    factor: float
    bits: int


def codes_of(kinds: Tensor, *, nearest: bool) -> Tensor:
    """Return the codes, uint8, of operations by number, int64 in 0 to 13."""
    codes = kinds.to(torch.uint8)
    if not nearest:
        return codes
    geometric = (codes >= _GEOMETRIC) & (codes < _FACTORS)
    return torch.where(geometric, codes + NEAREST, codes)


def strengths_of(
    kinds: Tensor,
    places: Tensor,
    negative: Tensor,
    *,
    space: Space,
    bins: int,
    size: tuple[int, int],
) -> Tensor:
    """Return the strengths, float32, of operations.

    Args:
        kinds: int64, numbers of the operations.
        places: int64, of their magnitudes among `bins` of them, from none to the largest.
        negative: bool, where a magnitude that has a sign is to have that one.
        space: the largest magnitudes.
        bins: how many magnitudes there are.
        size: (H, W) of the images.
    """
    place, steps = places.float(), bins - 1
    height, width = size
    # A product before the quotient, so that whole numbers come out whole.
    shear, degrees, factor = (
        place * most / steps for most in (space.shear, space.degrees, space.factor)
    )
    across, down = (
        # To the right and down, where the code's strength is added to the source's place.
        -(place * (space.shift + space.shift_share * side) / steps).floor()
        for side in (width, height)
    )
    of_ops = {
        ImageOp.SHEAR_X: shear,
        ImageOp.SHEAR_Y: shear,
        ImageOp.TRANSLATE_X: across,
        ImageOp.TRANSLATE_Y: down,
        ImageOp.ROTATE: degrees,
        ImageOp.POSTERIZE: 8 - (place / (steps / space.bits)).round(),
        ImageOp.SOLARIZE: 255 - place * 255 / steps,
    }
    strengths = factor
    for op, values in of_ops.items():
        strengths = torch.where(kinds == int(op), values, strengths)
    # From the first geometric one on, all have a sign; factors are around 1.
    strengths = torch.where(negative & (kinds >= _GEOMETRIC), -strengths, strengths)
    return torch.where(kinds >= _FACTORS, 1 + strengths, strengths)
