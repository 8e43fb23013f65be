"""Clip gradients, where some are split over the processes and others are not."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from entprop_fast.sharding import is_split


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> None:
    """Scale the gradients of `parameters` so that the norm of all together is at most `limit`."""
    parameters = list(parameters)
    kinds = [[p for p in parameters if is_split(p) == split] for split in (False, True)]
    if not all(kinds):
        clip_grad_norm_(parameters, limit)
        return
    norms = [get_total_norm(p.grad for p in kind if p.grad is not None) for kind in kinds]
    whole = [norm.full_tensor() if is_split(norm) else norm for norm in norms]  # type: ignore[operator]
    total = torch.linalg.vector_norm(torch.stack(whole))
    for kind in kinds:
        clip_grads_with_norm_(kind, limit, total)
