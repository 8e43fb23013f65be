"""Draw a step's random numbers on its device, from its generator, without waiting for it.

Numbers in brackets are the equations of docs/algorithm.md.
"""

import math

import torch
from torch import Tensor

from entprop_fast.devices import widest_float
from entprop_fast.torch_internals import draw_dirichlet, draw_gamma


def draw_lam(beta: float, images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw MixUp's lam ~ Beta(beta, beta) on the device of `images`, a 0-dim tensor (1).

    `torch.distributions` would synchronise and takes no generator.
    """
    if widest_float(images.device) != torch.float64:  # nor has torch a gamma draw for them all
        normal = torch.randn(2, 16, generator=generator, device=images.device)
        chance = 1 - torch.rand(2, 17, generator=generator, device=images.device)  # never 0
        log = log_gammas(beta, normal, chance)
        return (log[0] - log[1]).sigmoid().to(images.dtype)
    concentration = torch.full((2,), beta, dtype=torch.float64, device=images.device)
    if beta < 0.02:  # both of the Dirichlet's gamma numbers may underflow, and its lam be 1/2
        log = beta * draw_gamma(concentration + 1, generator).log()
        log += torch.empty_like(log).uniform_(generator=generator).log()  # G(b) = G(b+1) U^(1/b)
        return ((log[0] - log[1]) / beta).sigmoid().to(images.dtype)
    return draw_dirichlet(concentration, generator)[0].to(images.dtype)


def log_gammas(concentration: float, normal: Tensor, chance: Tensor) -> Tensor:
    """Make logarithms of numbers from Gamma(concentration), in float32, without waiting.

    Marsaglia and Tsang (ACM TOMS 26, 2000): the first of 16 candidates for Gamma(c + 1) that is
    accepted, as 95 of 100 are; G(c) = G(c + 1) U^(1/c).

    Args:
        concentration: c, at least 0.
        normal: [..., 16] standard normal numbers.
        chance: [..., 17] uniform ones in (0, 1].
    """
    d = concentration + 1 - 1 / 3
    cube = (1 + normal / math.sqrt(9 * d)) ** 3
    log_cube = cube.clamp(min=1e-30).log()
    accepted = (cube > 0) & (chance[..., 1:].log() < normal**2 / 2 + d - d * cube + d * log_cube)
    first = accepted.float().argmax(dim=-1, keepdim=True)
    log = log_cube.gather(-1, first)[..., 0] + math.log(d)
    return log + chance[..., 0].log() / max(concentration, 1e-30)


def draw_partners(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw MixUp's partner of each row, a random permutation [B] (1)."""
    return torch.randperm(len(images), generator=generator, device=images.device)


def draw_box(lam: Tensor, images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw CutMix's box, True inside, [H, W]: a share 1 - lam of the image, cut at its edges (8).

    The centre is uniform over the pixels; both sides are sqrt(1 - lam) of the image's, rounded
    down to an even number of pixels. No size is ever read back: the box is a comparison.
    """
    wide = widest_float(images.device)
    cut = (1 - lam.to(wide)).sqrt()
    centre = torch.rand(2, generator=generator, device=images.device, dtype=wide)
    inside: list[Tensor] = []
    for share, pixels in zip(centre, images.shape[2:], strict=True):
        middle, half = (share * pixels).floor(), ((pixels * cut).floor() / 2).floor()
        at = torch.arange(pixels, device=images.device)
        inside.append((at >= middle - half) & (at < middle + half))
    return inside[0][:, None] & inside[1]


def draw_start(
    rows: int, images: Tensor, eps: Tensor | float, generator: torch.Generator | None
) -> Tensor:
    """Draw the offset that an attack starts from, uniform in +-eps: [rows, C, H, W] (9)."""
    shape = (rows, *images.shape[1:])
    unit = torch.rand(shape, generator=generator, device=images.device, dtype=images.dtype)
    return (2 * unit - 1) * eps


def draw_levels(
    kinds: int, views: int, images: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Draw how strong the noise of each kind and view is, each Beta(2, 5): [kinds, views] (19).

    That is the law of the second smallest of six uniform numbers.
    """
    shape = (kinds, views, 6)
    unit = torch.rand(shape, generator=generator, device=images.device, dtype=images.dtype)
    return unit.sort(dim=2).values[..., 1]


def draw_scores(rows: int, logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw the random score of so many rows, uniform in [0, 1): [rows]."""
    return torch.rand(rows, generator=generator, device=logits.device, dtype=logits.dtype)
