"""Fold batch norms into the convolutions before them, where that changes nothing but rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx
from torch.nn.utils.fusion import fuse_conv_bn_weights

_CONVOLUTIONS = {
    getattr(getattr(torch.ops.aten, name), overload)
    for name in ("conv1d", "conv2d", "conv3d")
    for overload in ("default", "padding")
}
_BATCH_NORM = torch.ops.aten.batch_norm.default


class Folded(NamedTuple):
    """Count the batch norms of a program, and those that are part of a convolution now."""

    folded: int
    norms: int


def fold_norms(program: fx.GraphModule) -> Folded:
    """Fold every batch norm of an exported program whose only input is a convolution, in place.

    It is exact, but for rounding, where the norm uses its running statistics and nobody else reads
    what the convolution gives. The new weights are computed in float64.

    Args:
        program: ``ExportedProgram.module()`` of a network in eval mode: calls of PyTorch's own ops.

    Returns:
        How many were folded, and how many batch norms there were.
    """
    norms = [node for node in program.graph.nodes if node.target is _BATCH_NORM]
    folded = sum(_fold(program, norm, number) for number, norm in enumerate(norms))
    program.graph.eliminate_dead_code()
    program.delete_all_unused_submodules()
    program.recompile()
    return Folded(folded, len(norms))


def _fold(program: fx.GraphModule, norm: fx.Node, number: int) -> bool:
    """Fold one norm, if it may be."""
    x, norm_weight, norm_bias, mean, variance, training, _, eps, *_ = norm.args
    if not isinstance(x, fx.Node) or x.target not in _CONVOLUTIONS or len(x.users) > 1 or training:
        return False
    _, weight, bias = (*x.args, None)[:3]
    nodes = (weight, bias, mean, variance, norm_weight, norm_bias)
    values = [_constant(program, node) for node in nodes]
    if any(value is None and node is not None for value, node in zip(values, nodes, strict=True)):
        return False  # computed while the network runs
    fused = _fused(values, float(str(eps)))
    with program.graph.inserting_before(x):
        names = (f"folded_weight_{number}", f"folded_bias_{number}")
        new = [_new_constant(program, *one) for one in zip(names, fused, strict=True)]
    x.args = (x.args[0], *new, *x.args[3:])
    norm.replace_all_uses_with(x)
    program.graph.erase_node(norm)
    return True


def _fused(values: Sequence[Tensor | None], eps: float) -> tuple[Tensor, Tensor]:
    """Return the convolution's weight and bias with the norm in them, of its dtype.

    `values` are its weight and bias, and the norm's mean, variance, weight and bias.
    """
    # On the CPU: not every device has float64.
    wide = [None if value is None else value.detach().cpu().double() for value in values]
    weight, bias, mean, variance, norm_weight, norm_bias = wide
    assert values[0] is not None and weight is not None
    assert mean is not None and variance is not None  # else the norm would use the batch's
    fused = fuse_conv_bn_weights(weight, bias, mean, variance, eps, norm_weight, norm_bias)
    new_weight, new_bias = (one.detach().to(values[0]) for one in fused)
    return new_weight, new_bias


def _constant(program: fx.GraphModule, node: object) -> Tensor | None:
    """Return the parameter or buffer that a node reads; None where it is none."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    path, _, name = str(node.target).rpartition(".")
    value = getattr(program.get_submodule(path), name)
    return value if isinstance(value, Tensor) else None


def _new_constant(program: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    program.register_buffer(name, value)
    return program.graph.get_attr(name)
