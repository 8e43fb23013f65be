"""Sample weighting as in Fast AdvProp: every parameter's gradient is a mean over its own rows."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from entprop_fast.layers.dual_norm import DualNorm


@contextlib.contextmanager
def equalized(
    model: nn.Module, criterion: nn.Module | None, main_rows: float, aux_rows: float
) -> Iterator[None]:
    """Divide each gradient that the block adds by the weighted number of rows that reached it.

    The block's losses are sums over rows. Parameters of main norms are divided by `main_rows`,
    those of auxiliary norms by `aux_rows`, all others by both together. Gradients from before the
    block are kept and added to.

    Args:
        model: without dual norms, all rows reach all of its parameters.
        criterion: the loss, whose parameters all rows reach, or None.
        main_rows: rows that went through the main norms, times their loss's weight.
        aux_rows: rows that went through the auxiliary norms, times their loss's weight.
    """
    layers = [module for module in model.modules() if isinstance(module, DualNorm)]
    counts = {id(p): main_rows for layer in layers for p in layer.main_parameters()}
    counts |= {id(p): aux_rows for layer in layers for p in layer.aux.parameters()}
    parameters = [*model.parameters(), *(criterion.parameters() if criterion is not None else ())]
    earlier = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
        reached = [p for p in parameters if p.grad is not None]
        divisors = [counts.get(id(p), main_rows + aux_rows) for p in reached]
        gradients = [p.grad for p in reached if p.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, [1 / divisor for divisor in divisors])
    finally:
        for parameter, before in zip(parameters, earlier, strict=True):
            parameter.grad = _sum(before, parameter.grad)


def _sum(before: Tensor | None, added: Tensor | None) -> Tensor | None:
    if before is None or added is None:
        return added if before is None else before
    return before.add_(added)
