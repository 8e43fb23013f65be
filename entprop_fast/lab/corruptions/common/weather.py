"""Make snow and fog; `frost` has a file of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from entprop_fast.counter_random import keys_of, paired_normals, paired_uniforms
from entprop_fast.lab.corruptions.common.blur import line_blur, zoomed
from entprop_fast.lab.corruptions.common.levels import cut

_LUMA = (0.299, 0.587, 0.114)


def snow(
    images: Tensor,
    keys: Tensor,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    keep: float,
) -> Tensor:
    """Lay flakes on twice: noise, enlarged, thresholded, blurred along a line.

    They are cut to 8 bits before and after that blur, as files go into and out of ImageMagick.
    Beneath them the image is whitened: mixed with the brighter of itself and 1.5 luma + 0.5.
    """
    count, _, height, width = images.shape
    noise = paired_normals(keys_of(0, keys), height * width).view(count, 1, height, width)
    layer = zoomed(mean + std * noise.to(images.dtype), zoom)
    layer = cut(layer.masked_fill(layer < threshold, 0).clamp_(0, 1))
    degrees = -135 + 90 * paired_uniforms(keys_of(1, keys), 1)[:, 0]
    layer = cut(line_blur(layer, degrees, radius, sigma))
    white = torch.maximum(images, 1.5 * luma(images) + 0.5)
    return keep * images + (1 - keep) * white + layer + layer.flip(2, 3)


def luma(images: Tensor) -> Tensor:
    """Make an RGB image grey ``[N, 1, H, W]`` (Rec. 601); a grey one stays."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(dim=1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def fog(images: Tensor, keys: Tensor, amount: float, decay: float) -> Tensor:
    """Add a fractal height map, then rescale so that the brightest value stays possible."""
    height, width = images.shape[2:]
    size = 1 << (max(height, width) - 1).bit_length()
    mist = plasma(keys, size, decay)[:, None, :height, :width].to(images.dtype)
    brightest = images.amax(dim=(1, 2, 3), keepdim=True)
    return (images + amount * mist) * (brightest / (brightest + amount))


def plasma(keys: Tensor, size: int, decay: float) -> Tensor:
    """Draw height maps in [0, 1] by diamonds and squares, ``[N, size, size]``, wrapped round.

    Args:
        keys: of the images, ``[N]``.
        size: a power of two.
        decay: each level's random part is smaller by its square.
    """
    random = 2 * paired_uniforms(keys, size * size).view(-1, size, size) - 1
    heights = torch.zeros_like(random)
    step, roughness = size, 100.0
    while step >= 2:
        half = step // 2
        odd, even = slice(half, None, step), slice(None, None, step)
        corners = heights[:, even, even]
        above = corners + corners.roll(-1, dims=1)
        squares = above + above.roll(-1, dims=2)
        middles = heights[:, odd, odd] = squares / 4 + roughness**2 * random[:, odd, odd]
        across = middles + middles.roll(1, dims=1) + corners + corners.roll(-1, dims=2)
        heights[:, even, odd] = across / 4 + roughness**2 * random[:, even, odd]
        down = middles + middles.roll(1, dims=2) + above
        heights[:, odd, even] = down / 4 + roughness**2 * random[:, odd, even]
        step, roughness = half, roughness / decay
    heights -= heights.amin(dim=(1, 2), keepdim=True)
    # A map of one pixel has no highest point.
    return heights / heights.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo().tiny)
