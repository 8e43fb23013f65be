"""Draw operations and their strengths as AugMix and PixMix do, whose code for it is the same."""

from __future__ import annotations

import torch
from torch import Tensor

from entprop_fast.ops.image_chains import ImageOp

# `augmentations` of AugMix's augmentations.py and of pixmix_utils.py are the codes from the first
# to the last of these, and `augmentations_all` go on to sharpness.
_FIRST, _LAST, _LAST_OF_ALL = ImageOp.AUTOCONTRAST, ImageOp.TRANSLATE_Y, ImageOp.SHARPNESS


def operations(
    kinds: Tensor,
    drawn: Tensor,
    signs: Tensor,
    *,
    severity: float,
    all_ops: bool,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Return codes, uint8, and strengths, float32, for `entprop_fast.ops.image_chains`.

    Args:
        kinds: uniform numbers that choose operations.
        drawn: uniform numbers of their strengths: `sample_level` of the code.
        signs: uniform numbers of their signs.
        severity: highest level, of 10.
        all_ops: choose brightness, color, contrast and sharpness, too.
        size: (H, W) of the images, which are shifted by a third of it at level 10.
    """
    last = _LAST_OF_ALL if all_ops else _LAST
    codes = (_FIRST + kinds * (last - _FIRST + 1)).to(torch.uint8)
    sign = 1 - 2 * (signs > 0.5).to(drawn.dtype)  # two numbers would be of the default dtype
    tenths = (0.1 + drawn * (severity - 0.1)) / 10
    height, width = size
    shear = sign * (tenths * 0.3)
    of_ops = {
        ImageOp.POSTERIZE: 4 - (tenths * 4).floor(),
        ImageOp.SOLARIZE: 256 - (tenths * 256).floor(),
        ImageOp.ROTATE: sign * (tenths * 30).floor(),
        ImageOp.SHEAR_X: shear,
        ImageOp.SHEAR_Y: shear,
        ImageOp.TRANSLATE_X: sign * (tenths * (width / 3)).floor(),
        ImageOp.TRANSLATE_Y: sign * (tenths * (height / 3)).floor(),
    }
    strengths = tenths * 1.8 + 0.1  # a factor; autocontrast and equalize have no strength
    for op, values in of_ops.items():
        strengths = torch.where(codes == int(op), values, strengths)
    return codes, strengths
