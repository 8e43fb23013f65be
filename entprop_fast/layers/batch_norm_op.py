"""`nn.BatchNorm2d` modules as arguments of the batch norm op."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from entprop_fast.norm_half import PLAIN, Half
from entprop_fast.ops.dual_batch_norm import dual_batch_norm


def batch_norm(
    x: Tensor,
    main: _BatchNorm | None,
    aux: _BatchNorm | None = None,
    num_main: int | None = None,
    *,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """``relu?(norm(x) + residual?)`` through one op; each module's statistics move as by itself.

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
    """The sum and ReLU after a norm that is not fused; `y`, which a hook may keep, stays."""
    if residual is not None:
        y = y + residual
    return F.relu(y) if relu else y


def has_hooks(module: nn.Module) -> bool:
    """Whether anything of the user's runs when `module` does."""
    return any(
        (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    )


def averages_cumulatively(norm: nn.Module, x: Tensor) -> bool:
    """Whether torch would read ``num_batches_tracked`` on the host, which synchronises a device."""
    return (
        isinstance(norm, nn.BatchNorm2d)
        and norm.momentum is None
        and norm.training
        and norm.track_running_stats
        and norm.num_batches_tracked is not None
        and x.device.type != "cpu"
    )


def cumulative_batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Training-mode batch norm with ``momentum=None`` and the counter read on the device.

    Args:
        norm: tracks running statistics; they become the mean over all batches seen.
        x: ``[N, C, H, W]``.
    """
    norm._check_input_dim(x)
    assert norm.num_batches_tracked is not None
    assert norm.running_mean is not None and norm.running_var is not None
    norm.num_batches_tracked.add_(1)
    # momentum=1 leaves this batch's own statistics in the two; an empty one leaves them alone.
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    y = F.batch_norm(x, mean, variance, norm.weight, norm.bias, True, 1.0, norm.eps)
    share = norm.num_batches_tracked.to(mean.dtype).reciprocal()
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)
    return y


def _half(norm: _BatchNorm, x: Tensor) -> Half:
    """Return what `nn.BatchNorm2d.forward` would hand to `F.batch_norm`."""
    norm._check_input_dim(x)
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
