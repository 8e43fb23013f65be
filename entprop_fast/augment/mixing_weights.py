"""Draw the weights of mixtures, each image's by its key."""

from __future__ import annotations

from torch import Tensor

from entprop_fast.counter_random import keys_of, normals, uniforms
from entprop_fast.draws import log_gammas


def dirichlet(keys: Tensor, alpha: float, count: int) -> Tensor:
    """Draw from Dirichlet(alpha, ..., alpha), float32 [B, count]."""
    if alpha == 1:  # then a gamma number is an exponential one
        shares = -uniforms(keys, count).log()
        return shares / shares.sum(1, keepdim=True)
    return _log_gammas(keys, alpha, count).softmax(1)


def beta(keys: Tensor, alpha: float) -> Tensor:
    """Draw from Beta(alpha, alpha), float32 [B]."""
    if alpha == 1:
        return uniforms(keys, 1)[:, 0]
    return dirichlet(keys, alpha, 2)[:, 0]


def _log_gammas(keys: Tensor, alpha: float, count: int) -> Tensor:
    """Draw logarithms from Gamma(alpha), [B, count]."""
    normal = normals(keys_of(1, keys), 16 * count).view(-1, count, 16)
    return log_gammas(alpha, normal, uniforms(keys, 17 * count).view(-1, count, 17))
