"""Normalise the rows of all processes together: one collective forward, one backward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from entprop_fast.layers.batch_norm_op import as_planes
from entprop_fast.norm_half import PLAIN, Half
from entprop_fast.ops.dual_batch_norm import BACKWARD, OP
from entprop_fast.ops.dual_batch_norm_dx import OP as DX
from entprop_fast.ops.dual_batch_norm_merge import Running, merge_moments
from entprop_fast.ops.dual_batch_norm_moments import moments
from entprop_fast.ops.dual_batch_norm_schema import flat
from entprop_fast.ops.library import call
from entprop_fast.torch_internals import BatchNormBase, check_dimensions

Norms = tuple[BatchNormBase | None, BatchNormBase | None]


def processes(group: Any) -> int:
    """Count the processes of a group, None for the default one; 1 where there are no others."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return max(dist.get_world_size(group), 1)  # -1 outside of the group


def synchronised_batch_norm(
    x: Tensor,
    main: BatchNormBase,
    aux: BatchNormBase | None = None,
    num_main: int | None = None,
    *,
    residual: Tensor | None = None,
    relu: bool = False,
    group: Any = None,
) -> Tensor:
    """Compute ``relu?(norm(x) + residual?)`` by the statistics of the rows of all processes.

    Every process calls it, also one without rows of a half, or of any. The two halves share a
    collective of ``[2, 2C + 1]`` numbers a process, and in the backward one of ``[2, 2, C]``,
    whichever rows a process has of them: routes may differ. In the backward only the gradient of
    `x` needs one; it needs it in all processes or in none. Weights and biases get the sums over
    this process's rows.

    Args:
        x: ``[N, C, ...]``; N may differ.
        main: normalises rows ``[0, num_main)``.
        aux: normalises the rest; None where there is none.
        num_main: None for all rows.
        residual: shape and dtype of `x`.
        relu: apply ReLU last.
        group: of processes; None for the default one.

    Raises:
        ValueError: as the norm itself, on the CPU also for a single value per channel in all
            processes together. CUDA is not waited for: a variance of 0 is what it gets.
    """
    for norm in (main, aux):
        if norm is not None:
            check_dimensions(norm, x)
    num_main = x.shape[0] if num_main is None else num_main
    planes, summed = x, residual
    if x.dim() in (3, 5):
        planes, summed = as_planes(x), None if residual is None else as_planes(residual)
    affine = [None if n is None else t for n in (main, aux) for t in _affine(n)]
    y = _APPLY(planes, summed, *affine, (main, aux), num_main, relu, group)
    return y if planes is x else y.view(x.shape)


def _affine(norm: BatchNormBase | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if norm is None else (norm.weight, norm.bias)


class _Synchronised(Function):
    """Exchange moments and normalise by what they say; exchange sums and correct the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        aux_weight: Tensor | None,
        aux_bias: Tensor | None,
        norms: Norms,
        num_main: int,
        relu: bool,
        group: Any,
    ) -> Tensor:
        trains = _trains(norms[0]), _trains(norms[1])
        gathered = _gather(moments(x, num_main, *trains), group)
        if x.device.type == "cpu":
            _check_counts(gathered[:, :, -1].sum(0), x)
        mean, variance, count = merge_moments(gathered, *map(_running, norms))
        main, aux = (
            _half(norm, trains[row], mean[row], variance[row]) for row, norm in enumerate(norms)
        )
        y: Tensor
        y, mean, rstd, mask, _ = call(OP, x, *flat(x, residual, main, aux, num_main, relu))
        kept = residual if relu and mask.numel() == 0 else None
        affine = (weight, bias, aux_weight, aux_bias)
        ctx.save_for_backward(x, kept, *affine, mean, rstd, mask, count)
        ctx.settings, ctx.trains, ctx.group = (num_main, relu), trains, group
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *saved, count = ctx.saved_tensors
        x, residual, *affine, mean, rstd, mask = saved
        num_main, relu = ctx.settings
        need_x, need_residual, *need_affine = ctx.needs_input_grad[:6]
        need_sums = [need_x or any(need_affine[place::2]) for place in (0, 1)]
        # As of fixed statistics: there the sums are those of this process's rows, and all it is.
        fixed = (num_main, False, False, relu, [False, need_residual, *need_sums])
        _, dresidual, dweight, dbias = call(BACKWARD, grad, grad, *saved, *fixed)
        dx = None
        if need_x:
            sums = torch.stack([dbias, dweight])
            dist.all_reduce(sums, group=ctx.group)
            if need_residual:  # the gradient before the ReLU, of which nothing is left to do
                grad, residual, mask, relu = dresidual, None, mask.new_empty(0), False
            given = (residual, *affine, mean, rstd, mask, sums, count)
            dx = call(DX, grad, grad, x, *given, num_main, *ctx.trains, relu)
        gradients: list[Tensor | None] = []
        has_rows = num_main > 0, num_main < x.shape[0]
        for place, (parameter, needed) in enumerate(zip(affine, need_affine, strict=True)):
            half, is_bias = divmod(place, 2)
            found = (dbias if is_bias else dweight)[half] if needed and has_rows[half] else None
            gradients.append(None if found is None else found.to(parameter.dtype))
        return dx, dresidual if need_residual else None, *gradients, None, None, None, None


_APPLY: Callable[..., Tensor] = _Synchronised.apply


def _trains(norm: BatchNormBase | None) -> bool:
    """Return whether a half normalises by the statistics of its rows."""
    if norm is None:
        return False
    return norm.training or (norm.running_mean is None and norm.running_var is None)


def _gather(found: Tensor, group: Any) -> Tensor:
    """Return the moments of all processes, [W, 2, 2C + 1]."""
    out = found.new_empty((dist.get_world_size(group), *found.shape))
    # Its name of old until torch 2.12.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(out.flatten(0, 1), found, group=group)
    return out


def _check_counts(count: Tensor, x: Tensor) -> None:
    """Refuse a single value a channel; on the CPU, where seeing it costs no wait."""
    if 1 in count.tolist():
        size = torch.Size((1, *x.shape[1:]))  # in the words of F.batch_norm
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {size} "
            "in all processes together"
        )


def _running(norm: BatchNormBase | None) -> Running:
    """Return what of a half moves in training."""
    if norm is None or not (norm.training and norm.track_running_stats):
        return Running()
    counter = norm.num_batches_tracked
    momentum = 0.0 if norm.momentum is None and counter is None else norm.momentum
    return Running(norm.running_mean, norm.running_var, counter, momentum)


def _half(norm: BatchNormBase | None, trains: bool, mean: Tensor, variance: Tensor) -> Half:
    """Return a half as it normalises: by statistics that are known now."""
    if norm is None:  # it has no rows: the op looks at nothing of it
        return PLAIN._replace(running_mean=mean, running_var=variance, training=False)
    if not trains:
        mean, variance = norm.running_mean, norm.running_var  # type: ignore[assignment]
    return Half(norm.weight, norm.bias, mean, variance, False, 0.0, norm.eps)
