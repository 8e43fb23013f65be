"""Draw PRIME's random numbers so that a kernel can draw any of them alone."""

import math

import torch
from torch import Tensor

from entprop_fast.counter_random import paired_uniforms


def pair_normals(keys: Tensor, count: int) -> Tensor:
    """Draw standard normal numbers, float32 [S, count]: two of each word of a key's stream.

    Numbers 2i and 2i + 1 are Box and Muller's (1958) pair of word i alone: its low half is the
    radius, its high half the angle. csrc/cpu/prime_random.h says the same in C++.
    """
    pairs = (count + 1) // 2
    u = paired_uniforms(keys, 2 * pairs).view(len(keys), pairs, 2)
    radius = u[..., 0].log().mul_(-2).sqrt_()
    angle = u[..., 1] * (2 * math.pi)
    both = torch.stack((angle.cos().mul_(radius), angle.sin().mul_(radius)), dim=-1)
    return both.flatten(1)[:, :count]
