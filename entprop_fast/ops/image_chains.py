"""Run chains of image operations on 8-bit levels, as Pillow runs them, and mix their results.

The result is the same, bit for bit, wherever it is computed. All arithmetic is in integers, but
for these, where nothing may be fused into one rounding: a blend (`image_chains_tables.blended`)
and the mixture are in float32, the table of autocontrast and the matrices in float64 (float32 on
devices without it).
"""

from typing import cast

import torch
from torch import Tensor

from entprop_fast.ops.backend import uses_kernels
from entprop_fast.ops.image_chains_codes import GEOMETRIC, LARGEST, NEAREST, ImageOp
from entprop_fast.ops.image_chains_enhancement import enhanced, grey
from entprop_fast.ops.image_chains_geometry import moved
from entprop_fast.ops.image_chains_tables import mapped
from entprop_fast.ops.layout import memory_format
from entprop_fast.ops.library import define
from entprop_fast.ops.tensor_checks import require, require_images

__all__ = ["GEOMETRIC", "NEAREST", "OP", "REFERENCE_OP", "ImageOp", "check", "image_chains"]

SCHEMA = (
    "image_chains(Tensor images, Tensor codes, Tensor strengths, Tensor weights, Tensor keep) "
    "-> Tensor"
)
LARGEST_SIDE = 2**15  # of an image, so that places in it fit their integers


def check(images: Tensor, codes: Tensor, strengths: Tensor, weights: Tensor, keep: Tensor) -> None:
    """Refuse arguments of the op that do not fit."""
    require_images(images)
    shape = images.shape
    if images.dtype != torch.uint8 or max(shape[2:]) > LARGEST_SIDE:
        raise ValueError(
            f"images: expected torch.uint8 with sides of at most {LARGEST_SIDE}, got "
            f"{images.dtype} {list(shape)}"
        )
    chains = codes.shape[1:] if codes.dim() == 3 else ("width", "depth")
    require("codes", codes, (shape[0], *chains), torch.uint8, images)
    require("strengths", strengths, codes.shape, torch.float32, images)
    require("weights", weights, codes.shape[:2], torch.float32, images)
    require("keep", keep, shape[:1], torch.float32, images)


def reference(
    images: Tensor, codes: Tensor, strengths: Tensor, weights: Tensor, keep: Tensor
) -> Tensor:
    """Compute the op in plain PyTorch: every kind of operation on every image, most idly."""
    strengths = strengths.nan_to_num(0).clamp(-LARGEST, LARGEST)
    mixed = keep[:, None, None, None] * images
    for chain in range(codes.shape[1]):
        levels = images
        for place in range(codes.shape[2]):
            levels = _applied(levels, codes[:, chain, place], strengths[:, chain, place])
        mixed = mixed + weights[:, chain, None, None, None] * levels
    result = torch.empty_like(images, memory_format=memory_format(images))
    return result.copy_((mixed + 0.5).floor().clamp(0, 255))


def _applied(levels: Tensor, codes: Tensor, strengths: Tensor) -> Tensor:
    """Apply one operation to each image; the kinds of the others leave it as it is."""
    ops = codes % NEAREST
    levels = moved(levels, codes, strengths)
    luma = grey(levels)
    levels = mapped(levels, ops, strengths, luma)
    return enhanced(levels, ops, strengths, luma)


def _fake(
    images: Tensor, codes: Tensor, strengths: Tensor, weights: Tensor, keep: Tensor
) -> Tensor:
    return torch.empty_like(images, memory_format=memory_format(images))


OP, REFERENCE_OP = define(SCHEMA, check, reference, _fake)


def image_chains(
    images: Tensor, codes: Tensor, strengths: Tensor, weights: Tensor, keep: Tensor
) -> Tensor:
    """Apply to each image chains of operations of its own, and mix the results with the image.

    ``floor(keep image + sum_w weights[w] chain_w(image) + 1/2)``, clamped to the levels. Each
    operation of a chain starts from the 8-bit levels that the one before it left, and gives what
    Pillow gives: ImageOps and ImageEnhance to the bit, nearest sampling too, bilinear sampling to
    one level. What comes from outside of the image is black.

    Args:
        images: uint8 [B, 1 or 3, H, W], sides of at most 32768.
        codes: uint8 [B, width, depth]. The low six bits are an `ImageOp`, the identity where they
            are none; the next one, `NEAREST`, is set for nearest sampling. Color leaves one channel
            as it is.
        strengths: float32 [B, width, depth], see `ImageOp`.
        weights: float32 [B, width], of the chains.
        keep: float32 [B], weight of the image itself.

    Returns:
        uint8, channels_last where `images` are, else contiguous.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    arguments = (images, codes, strengths, weights, keep)
    if uses_kernels(images) or torch.compiler.is_compiling():  # a graph holds the op as one node
        return cast(Tensor, OP(*arguments))
    check(*arguments)
    return reference(*arguments)
