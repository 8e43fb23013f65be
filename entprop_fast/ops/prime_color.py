"""Change the values of images by a random curve for each channel, a sum of sines (PRIME)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from entprop_fast.ops.prime_draws import pair_normals

_CHANNELS = 3  # draws are laid out for three channels; a grey image takes those of the first


def random_curves(
    keys: Tensor, bands: Tensor, scale: Tensor, channels: int, highest: int
) -> Tensor:
    """Draw the amplitudes of the curves' sines.

    Args:
        keys: int64 [S], the images' draws.
        bands: int32 [S, 2], the lowest and the highest frequency.
        scale: float32 [S], the amplitudes' standard deviation.
        channels: 1 or 3.
        highest: no band reaches further.

    Returns:
        float32 [S, channels, highest], the amplitudes of sin(pi k x) for k of 1 to `highest`.
    """
    drawn = pair_normals(keys, _CHANNELS * highest).view(len(keys), highest, _CHANNELS)[
        ..., :channels
    ]
    k = torch.arange(1, highest + 1, device=keys.device)
    inside = (k >= bands[:, :1]) & (k <= bands[:, 1:])
    return (drawn * (scale[:, None] * inside)[..., None]).mT


def bend(images: Tensor, amplitudes: Tensor) -> Tensor:
    """Return clamp(x + sum_k amplitude_k sin(pi k x), 0, 1) for each value x of a channel.

    Hermite's cubic between at least 8 points a period, whose error is below 1e-4 of an amplitude:
    a sine for each value and frequency would be a hundred times the images' memory.

    Args:
        images: float32 [S, C, H, W].
        amplitudes: as `random_curves`.
    """
    rows, channels, highest = amplitudes.shape
    cells = 2 ** math.ceil(math.log2(8 * highest))
    values, slopes = _nodes(highest, cells, images.device)
    flat = amplitudes.reshape(rows * channels, highest)
    # Both at once, [S * C, cells + 1, 2]: a value's neighbours then lie side by side.
    nodes = torch.stack((flat @ values, flat @ slopes), dim=-1)
    x = images.flatten(2).flatten(0, 1)
    place = x.clamp(0, 1) * cells
    cell = place.floor().clamp(max=cells - 1)
    t = place - cell
    at = cell.long()[..., None].expand(-1, -1, 2)
    y0, d0 = nodes.gather(1, at).unbind(-1)
    y1, d1 = nodes.gather(1, at + 1).unbind(-1)
    rest = 1 - t
    curve = rest * rest * ((1 + 2 * t) * y0 + t * d0) + t * t * ((3 - 2 * t) * y1 - rest * d1)
    bent: Tensor = (x + curve).clamp(0, 1)
    return bent.view_as(images)


def _nodes(highest: int, cells: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return sin(pi k x) at the ends of the cells, [highest, cells + 1], and its slopes a cell."""
    k = torch.arange(1, highest + 1, device=device)[:, None]
    phase = k * torch.arange(cells + 1, device=device) % (2 * cells)  # exact: whole numbers
    angle = phase.double() * (math.pi / cells)
    slopes: Tensor = angle.cos() * (k * (math.pi / cells))
    return angle.sin().float(), slopes.float()
