"""Hand `nn.BatchNorm2d` modules to the batch norm op."""

from torch import Tensor
from torch.nn import functional as F

from entprop_fast.norm_half import PLAIN, Half
from entprop_fast.ops.dual_batch_norm import dual_batch_norm
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
        x: ``[N, C, H, W]``.
        main: normalises rows ``[0, num_main)``; None where there are none.
        aux: normalises the rest; None where there is none.
        num_main: None for all rows.
        residual: shape and dtype of `x`.
        relu: apply ReLU last.

    Raises:
        ValueError: as `nn.BatchNorm2d`: an input that is not 4-d, a single value per channel.
    """
    return dual_batch_norm(
        x,
        PLAIN if main is None else _half(main, x),
        PLAIN if aux is None else _half(aux, x),
        num_main,
        residual=residual,
        relu=relu,
    )


def finish(y: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    """Add and apply ReLU after a norm that is not fused; `y`, which a hook may keep, stays."""
    if residual is not None:
        y = y + residual
    return F.relu(y) if relu else y


def _half(norm: BatchNormBase, x: Tensor) -> Half:
    """Return what `nn.BatchNorm2d.forward` would hand to `F.batch_norm`."""
    check_dimensions(norm, x)
    momentum = norm.momentum
    moves = norm.training and norm.track_running_stats
    if moves and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:  # a cumulative average; on the CPU reading the counter is free
            momentum = 1.0 / float(norm.num_batches_tracked)
    reads = moves or not norm.training
    return Half(
        norm.weight,
        norm.bias,
        norm.running_mean if reads else None,
        norm.running_var if reads else None,
        norm.training or (norm.running_mean is None and norm.running_var is None),
        momentum or 0.0,
        norm.eps,
    )
