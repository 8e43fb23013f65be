"""Hand batch norm modules of torch to the batch norm op."""

import torch
from torch import Tensor
from torch.nn import functional as F

from entprop_fast.norm_half import PLAIN, Half, Normed
from entprop_fast.ops.dual_batch_norm import dual_batch_norm_outputs
from entprop_fast.torch_internals import BatchNormBase, check_dimensions


def batch_norm(
    x: Tensor,
    main: BatchNormBase | None,
    aux: BatchNormBase | None = None,
    num_main: int | None = None,
    *,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Compute ``relu?(norm(x) + residual?)`` by one op; each module's statistics move as by itself.

    Args:
        x: ``[N, C, ...]``.
        main: normalises rows ``[0, num_main)``; None where there are none.
        aux: normalises the rest; None where there is none.
        num_main: None for all rows.
        residual: shape and dtype of `x`.
        relu: apply ReLU last.

    Raises:
        ValueError: as the norm itself: an input of other dimensions, a single value per channel.
    """
    return batch_norm_outputs(x, main, aux, num_main, residual=residual, relu=relu).y


def batch_norm_outputs(
    x: Tensor,
    main: BatchNormBase | None,
    aux: BatchNormBase | None = None,
    num_main: int | None = None,
    *,
    residual: Tensor | None = None,
    relu: bool = False,
    addend: Tensor | None = None,
    twice: bool = False,
) -> Normed:
    """Compute ``batch_norm(x + addend)`` with the sums around it, as `dual_batch_norm_outputs`."""
    ours = PLAIN if main is None else _half(main, x)
    theirs = PLAIN if aux is None else _half(aux, x)
    if ours.num_batches is not None and ours.num_batches is theirs.num_batches:
        ours.num_batches.add_(1)  # a counter of both: the op moves no memory for two
        ours = ours._replace(num_batches=None)
    if x.dim() not in (3, 5):
        return dual_batch_norm_outputs(
            x, ours, theirs, num_main, residual=residual, relu=relu, addend=addend, twice=twice
        )
    after, before = (None if t is None else as_planes(t) for t in (residual, addend))
    found = dual_batch_norm_outputs(
        as_planes(x), ours, theirs, num_main, residual=after, relu=relu, addend=before, twice=twice
    )
    total = x if addend is None else found.total.view(x.shape)
    return Normed(found.y.view(x.shape), found.again.view(x.shape), total)


def as_planes(x: Tensor) -> Tensor:
    """Return ``[N, C, L]`` or ``[N, C, D, H, W]`` as 4-d: the kernels know its layouts alone.

    A view, be `x` contiguous or, as ``channels_last_3d``, with the channels innermost.
    """
    return x.unsqueeze(2) if x.dim() == 3 else x.flatten(2, 3)


def finish(y: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    """Add and apply ReLU after a norm that is not fused; `y`, which a hook may keep, stays."""
    if residual is not None:
        y = y + residual
    return F.relu(y) if relu else y


def _half(norm: BatchNormBase, x: Tensor) -> Half:
    """Return what the norm's own forward would hand to `F.batch_norm`."""
    check_dimensions(norm, x)
    momentum = norm.momentum
    moves = norm.training and norm.track_running_stats
    counter = norm.num_batches_tracked if moves else None
    if counter is not None and not (momentum is not None and _is_counter(counter, x)):
        counter.add_(1)
        if momentum is None:  # a cumulative average; on the CPU reading the counter is free
            momentum = 1.0 / float(counter)
        counter = None
    reads = moves or not norm.training
    return Half(
        norm.weight,
        norm.bias,
        norm.running_mean if reads else None,
        norm.running_var if reads else None,
        norm.training or (norm.running_mean is None and norm.running_var is None),
        momentum or 0.0,
        norm.eps,
        counter,
    )


def _is_counter(counter: Tensor, x: Tensor) -> bool:
    """Return whether the op counts on it: torch adds to a number of any dtype, wherever it is."""
    return counter.dtype == torch.int64 and counter.dim() == 0 and counter.device == x.device
