"""Generate the 19 corruptions by name, severity and scale, on any batch of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from entprop_fast.counter_random import fold, row_keys
from entprop_fast.lab.corruptions.common import blur, digital, noise, weather
from entprop_fast.lab.corruptions.common.frost import frost
from entprop_fast.lab.corruptions.common.levels import rounded, to_bytes
from entprop_fast.lab.corruptions.common.spatter import spatter
from entprop_fast.lab.corruptions.common.strengths import SCALES, STRENGTHS, Scale
from entprop_fast.lab.corruptions.ten_kinds import check_images, check_severity
from entprop_fast.name_errors import unknown

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": spatter,
    "saturate": digital.saturate,
}
_ALL = tuple(_FUNCTIONS)
_OF_BYTES = {  # these take and give uint8 images, all others floating ones
    *("defocus_blur", "glass_blur", "zoom_blur", "gaussian_blur"),
    "jpeg_compression",
}
_OF_ANY = {"pixelate"}  # takes either and gives uint8 images

COMMON_KINDS = _ALL[:15]  # those of RA and mCE
EXTRA_KINDS = _ALL[15:]  # published for validation; in no mean

# Grows when a kind's images change, so that older ones are not taken for them: 2 brought frost's
# moments and the published code's cuts to 8 bits.
GENERATOR = 2

_SUITE = 19  # sets these draws apart from those of `corruptions`
_CHUNK = 1 << 18  # values worked on at a time on a CPU, so that they stay in its cache


def common_corruption(
    images: Tensor,
    kind: str,
    severity: int,
    *,
    scale: Scale = "cifar-c",
    seed: int = 0,
    first: int = 0,
) -> Tensor:
    """Corrupt images as Hendrycks and Dietterich (2019) do: in [0, 1], not yet in 8 bits.

    `corrupted_bytes` is what to score on. Pixelate, JPEG and all blurs but that of motion take the
    nearest 8-bit images and give whole levels here too.

    An image's draws depend on ``(seed, kind, severity, its index)`` alone: the batch that it sits
    in changes nothing. `frost` is on procedural textures, everything else as published, but for
    the random numbers; docs/evaluation.md lists the details.

    Args:
        images: floating, ``[N, C, H, W]``, RGB or grey, values in [0, 1].
        kind: one of ``COMMON_KINDS`` or ``EXTRA_KINDS``.
        severity: 1 (mild) to 5 (hard).
        scale: whose strengths: ``cifar-c`` is made for 32 pixels, ``imagenet-c`` for 224.
        seed: any integer.
        first: index of ``images[0]`` in its data set.

    Returns:
        The same shape, dtype and device, contiguous.

    Raises:
        ValueError: unknown kind or scale, severity outside 1..5, not ``[N, 1 or 3, H, W]``, a
            negative ``first``, saturate on grey images, and, on the CPU alone (it would
            synchronise a GPU), values outside [0, 1].
        TypeError: images that are not floating.
    """
    parts = _parts(images, kind, severity, scale, seed, first, levels=False)
    out = torch.empty_like(images, memory_format=torch.contiguous_format)
    for part, made in parts:
        if made.dtype == torch.uint8:
            out[part].copy_(made).div_(255)
        else:
            out[part] = made.clamp_(0, 1)
    return out


def corrupted_bytes(
    images: Tensor,
    kind: str,
    severity: int,
    *,
    scale: Scale = "cifar-c",
    seed: int = 0,
    first: int = 0,
) -> Tensor:
    """Cut `common_corruption` to 8 bits as the published sets are: uint8 ``[N, C, H, W]``.

    Arguments and errors are its own, but images may be uint8 too.
    """
    parts = _parts(images, kind, severity, scale, seed, first, levels=True)
    out = torch.empty(images.shape, dtype=torch.uint8, device=images.device)
    for part, made in parts:
        out[part] = made if made.dtype == torch.uint8 else to_bytes(made)
    return out


def _parts(
    images: Tensor, kind: str, severity: int, scale: Scale, seed: int, first: int, *, levels: bool
) -> Iterator[tuple[slice, Tensor]]:
    """Check the arguments, then corrupt: parts of the batch, floating about in [0, 1], or uint8."""
    check_kind(kind)
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    check_severity(severity)
    check_images(images, first, levels=levels)
    check_channels(kind, images.shape[1])
    return _made(images, kind, severity, scale, seed, first)


def _made(
    images: Tensor, kind: str, severity: int, scale: Scale, seed: int, first: int
) -> Iterator[tuple[slice, Tensor]]:
    if images.numel() == 0:
        return
    key = fold((_SUITE, seed, _ALL.index(kind), severity))
    keys = row_keys(key, first, len(images), images.device)
    strength = STRENGTHS[scale][kind][severity - 1]
    rows = max(1, _CHUNK // images[0].numel()) if images.device.type == "cpu" else len(images)
    for start in range(0, len(images), rows):
        part = slice(start, start + rows)
        given = images[part].contiguous()
        if kind not in _OF_ANY:
            given = _as_bytes(given) if kind in _OF_BYTES else _as_floats(given)
        yield part, _FUNCTIONS[kind](given, keys[part], *strength)


def _as_bytes(images: Tensor) -> Tensor:
    return images if images.dtype == torch.uint8 else rounded(images.float())


def _as_floats(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images.float().div_(255)
    # Half precision could not even count the pixels of a large image.
    return images.to(torch.promote_types(images.dtype, torch.float32))


def check_kind(kind: str) -> None:
    """Raise ``ValueError`` unless the kind is one of the 19."""
    if kind not in _FUNCTIONS:
        raise unknown("corruption", kind, _ALL)


def check_channels(kind: str, channels: int) -> None:
    """Raise ``ValueError`` unless images of so many channels can be corrupted in that way."""
    wanted = (3,) if kind == "saturate" else (1, 3)
    if channels not in wanted:
        names = " or ".join(map(str, wanted))
        raise ValueError(f"images have {channels} channels; {kind} wants {names}")
