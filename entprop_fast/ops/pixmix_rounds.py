"""Mix rows of levels into images, for some rounds, as PixMix does."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import cast

import torch
from torch import Tensor

from entprop_fast.ops.library import define
from entprop_fast.ops.tensor_checks import require

SCHEMA = (
    "pixmix_rounds(Tensor images, Tensor pool, Tensor number, Tensor codes, Tensor weights) "
    "-> Tensor"
)
_TINY = 1e-37  # the published code raises nothing smaller to a power
# Smaller numbers are no normal ones of float32, which takes a CPU ten times as long.
_SMALLEST = 2.0**-126
_LOWEST = math.log(_SMALLEST)


class Mixing(IntEnum):
    """Number the ways to mix, as `codes` of `pixmix_rounds` do."""

    NONE = 0
    ADD = 1
    MULTIPLY = 2


def check(images: Tensor, pool: Tensor, number: Tensor, codes: Tensor, weights: Tensor) -> None:
    """Refuse arguments of the op that do not fit."""
    if images.dim() != 2 or images.dtype not in (torch.uint8, torch.float32, torch.float64):
        raise ValueError(
            "images: expected torch.uint8, torch.float32 or torch.float64 [B, values], got "
            f"{images.dtype} {list(images.shape)}"
        )
    if pool.dim() != 2 or len(pool) == 0:
        raise ValueError(
            f"pool: expected [rows, values] with at least a row, got {list(pool.shape)}"
        )
    require("pool", pool, (len(pool), images.shape[1]), torch.uint8, images)
    if codes.dim() != 2:
        raise ValueError(f"codes: expected [B, rounds], got {list(codes.shape)}")
    count, rounds = len(images), codes.shape[1]
    require("number", number, (count, rounds + 1), torch.int64, images)
    require("codes", codes, (count, rounds), torch.uint8, images)
    require("weights", weights, (count, rounds, 2), torch.float32, images)


def reference(
    images: Tensor, pool: Tensor, number: Tensor, codes: Tensor, weights: Tensor
) -> Tensor:
    """Compute the op in plain PyTorch: both ways to mix for all images.

    By ``exp``: of ``exp2`` a CPU rounds the last few values of a tensor another way than the rest,
    so that an image would depend on its batch.
    """
    whole = images.dtype == torch.uint8
    exact = torch.float32 if whole else images.dtype
    own = images.to(exact) / 255 if whole else images
    rows = number.clamp(0, len(pool) - 1)
    mixed = torch.where(number[:, :1] < 0, own, pool[rows[:, 0]].to(exact) / 255)
    levels = torch.arange(256, device=images.device, dtype=exact) * (2 / 255)
    logs = levels.clamp(min=_TINY).log()
    weights = weights.to(exact)
    for k in range(codes.shape[1]):
        a, b = weights[:, k, :1], weights[:, k, 1:]
        code, other = codes[:, k, None], pool[rows[:, k + 1]]
        power = mixed.clamp(min=_SMALLEST).log() * a
        power += logs[other.int()] * b + (a - 1) * math.log(2)
        power = power.clamp_(min=_LOWEST).exp_() * (mixed > _SMALLEST)
        added = mixed * a + (other.to(exact) * (b / 255) + (1 - a - b) / 2)
        both = torch.where(code == Mixing.MULTIPLY, power, added).clamp_(0, 1)
        mixed = torch.where((code == Mixing.MULTIPLY) | (code == Mixing.ADD), both, mixed)
    return (mixed * 255 + 0.5).clamp_(0, 255).to(torch.uint8) if whole else mixed


def _fake(images: Tensor, *rest: object) -> Tensor:
    return images.new_empty(images.shape)


OP, REFERENCE_OP = define(SCHEMA, check, reference, _fake)


def pixmix_rounds(
    images: Tensor, pool: Tensor, number: Tensor, codes: Tensor, weights: Tensor
) -> Tensor:
    """Add or multiply rows of levels to each image, one a round, in one pass over the image.

    As PixMix's published code does: of values in [-1, 1], ``a x + b y``; of values in [0, 2],
    ``x^a y^b``; then between 0 and 1. Carries no gradient.

    Args:
        images: uint8, or float32 or float64 in [0, 1], [B, values].
        pool: uint8 [rows, values], what is mixed in.
        number: int64 [B, rounds + 1], rows of the pool: what an image starts from (below 0: itself)
            and what each round mixes in. What is no row is the nearest.
        codes: uint8 [B, rounds], see `Mixing`; others mix nothing in.
        weights: float32 [B, rounds, 2], a and b.

    Returns:
        like `images`, contiguous; uint8 is rounded half up.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    with torch.no_grad():
        return cast(Tensor, OP(images, pool, number, codes, weights))
