"""Run PRIME's chains of primitives over images and mix them."""

from __future__ import annotations

import contextlib
from enum import IntEnum
from typing import cast

import torch
from torch import Tensor

from entprop_fast.ops.layout import memory_format, same_layout
from entprop_fast.ops.library import define
from entprop_fast.ops.prime_primitives import (
    bend,
    filter_images,
    random_curves,
    random_displacements,
    random_kernels,
    remap,
)
from entprop_fast.ops.tensor_checks import require, require_images

SCHEMA = (
    "prime_chains(Tensor images, Tensor codes, Tensor keys, Tensor bands, Tensor scale, "
    "Tensor weights, Tensor keep, int highest, int kernel) -> Tensor"
)


class Primitive(IntEnum):
    """Number the primitives, as `codes` of `prime_chains` do."""

    IDENTITY = 0
    WARP = 1
    COLOR = 2
    FILTER = 3


def check(
    images: Tensor,
    codes: Tensor,
    keys: Tensor,
    bands: Tensor,
    scale: Tensor,
    weights: Tensor,
    keep: Tensor,
    highest: int,
    kernel: int,
) -> None:
    """Refuse arguments of the op that do not fit."""
    require_images(images)
    if images.dtype not in (torch.uint8, torch.float32):
        raise ValueError(f"images: expected torch.uint8 or torch.float32, got {images.dtype}")
    if codes.dim() != 3:
        raise ValueError(f"codes: expected [B, width, depth], got {list(codes.shape)}")
    programs = (len(images), *codes.shape[1:])
    require("codes", codes, programs, torch.uint8, images)
    require("keys", keys, programs, torch.int64, images)
    require("bands", bands, (*programs, 2), torch.int32, images)
    require("scale", scale, programs, torch.float32, images)
    require("weights", weights, programs[:2], torch.float32, images)
    require("keep", keep, programs[:1], torch.float32, images)
    if not 1 <= highest <= 4096:
        raise ValueError(f"highest={highest}: expected a frequency of 1 to 4096")
    if kernel not in (3, 5, 7):
        raise ValueError(f"kernel={kernel}: expected 3, 5 or 7 pixels")


def reference(
    images: Tensor,
    codes: Tensor,
    keys: Tensor,
    bands: Tensor,
    scale: Tensor,
    weights: Tensor,
    keep: Tensor,
    highest: int,
    kernel: int,
) -> Tensor:
    """Compute the op in plain PyTorch: every primitive for every image, of which it takes one."""
    start = images.float() / 255 if images.dtype == torch.uint8 else images
    start = start.contiguous()
    width, depth = codes.shape[1:]
    chains = start.repeat_interleave(width, 0)  # [B * width, C, H, W]
    bands = bands.clamp(1, highest)
    for place in range(depth):
        key, amount = (value[:, :, place].flatten() for value in (keys, scale))
        band = bands[:, :, place].flatten(0, 1)
        kind = codes[:, :, place].flatten()[:, None, None, None]
        size = (images.shape[2], images.shape[3])
        warped = remap(chains, *random_displacements(key, band[:, 1], amount, size, highest))
        curves = random_curves(key, band, amount, images.shape[1], highest)
        filtered = filter_images(chains, random_kernels(key, amount, kernel))
        chains = torch.where(kind == Primitive.WARP, warped, chains)
        chains = torch.where(kind == Primitive.COLOR, bend(chains, curves), chains)
        chains = torch.where(kind == Primitive.FILTER, filtered, chains)
    mixed = torch.einsum("bw,bwchx->bchx", weights, chains.unflatten(0, (len(images), width)))
    mixed = keep[:, None, None, None] * start + mixed
    if images.dtype == torch.uint8:
        mixed = (mixed * 255 + 0.5).floor_().clamp_(0, 255).to(torch.uint8)
    return same_layout(mixed, _fake(images))


def _fake(images: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(images, memory_format=memory_format(images))


OP, REFERENCE_OP = define(SCHEMA, check, reference, _fake)


def prime_chains(
    images: Tensor,
    codes: Tensor,
    keys: Tensor,
    bands: Tensor,
    scale: Tensor,
    weights: Tensor,
    keep: Tensor,
    highest: int,
    kernel: int = 3,
) -> Tensor:
    """Run chains of PRIME's primitives over each image, and mix them with it.

    ``keep * x + sum_w weights[w] * chain_w(x)``; a chain applies its primitives in order to values
    in [0, 1]. Each primitive's random numbers are a function of its key. Carries no gradient.

    Args:
        images: uint8 or float32 [B, C, H, W], C of 1 or 3; floating ones in [0, 1].
        codes: uint8 [B, width, depth], see `Primitive`; others are the identity.
        keys: int64 [B, width, depth].
        bands: int32 [B, width, depth, 2], the lowest and the highest frequency of a colour's sines;
            a warp takes the second as its cut.
        scale: float32 [B, width, depth], the standard deviation: of a colour's amplitudes, of
            the kernel's entries, of a warp's modes (over their frequency).
        weights: float32 [B, width].
        keep: float32 [B].
        highest: at least as high as every band.
        kernel: the filter's side, 3, 5 or 7 pixels.

    Returns:
        like `images`; uint8 is rounded half up.

    Raises:
        ValueError: a shape, dtype, device or number that does not fit.
    """
    kind = images.device.type
    # A compiler cannot ask in torch 2.11.
    available = kind in ("cpu", "cuda") or torch.amp.is_autocast_available(kind)
    autocast = torch.autocast(kind, enabled=False) if available else contextlib.nullcontext()
    with torch.no_grad(), autocast:  # whose products would place pixels by 8 bits
        arguments = (images, codes, keys, bands, scale, weights, keep, highest, kernel)
        return cast(Tensor, OP(*arguments))
