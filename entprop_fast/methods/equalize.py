"""Weight samples as Fast AdvProp does: a parameter's gradient is a mean over its own rows."""

import contextlib
from collections.abc import Iterator

from torch import Tensor

from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.methods.network import Network
from entprop_fast.torch_internals import multiply_each


@contextlib.contextmanager
def equalized(net: Network, main_rows: float, aux_rows: float) -> Iterator[None]:
    """Divide each gradient that the block adds by the weighted number of rows that reached it.

    Inside the block losses are sums over rows. Parameters of main norms are divided by `main_rows`,
    those of auxiliary norms by `aux_rows`, all others by both together. Gradients from before the
    block are kept and added to.

    Args:
        net: all rows reach the parameters of its criterion and of a model without dual norms.
        main_rows: rows that went through the main norms, times their loss's weight.
        aux_rows: rows that went through the auxiliary norms, times their loss's weight.
    """
    model, criterion = net.model, net.criterion
    layers = [module for module in model.modules() if isinstance(module, DualNorm)]
    main = {id(p) for layer in layers for p in layer.main_parameters()}
    aux = {id(p) for layer in layers for p in layer.aux.parameters()}
    # What both halves share, all rows reach.
    counts = dict.fromkeys(main - aux, main_rows) | dict.fromkeys(aux - main, aux_rows)
    parameters = [*model.parameters(), *(criterion.parameters() if criterion is not None else ())]
    earlier = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    net.summed = True
    try:
        yield
        reached = [p for p in parameters if p.grad is not None]
        divisors = [counts.get(id(p), main_rows + aux_rows) for p in reached]
        gradients = [p.grad for p in reached if p.grad is not None]
        if gradients:
            multiply_each(gradients, [1 / divisor for divisor in divisors])
    finally:
        net.summed = False
        for parameter, before in zip(parameters, earlier, strict=True):
            parameter.grad = _sum(before, parameter.grad)


def _sum(before: Tensor | None, added: Tensor | None) -> Tensor | None:
    if before is None or added is None:
        return added if before is None else before
    return before.add_(added)
