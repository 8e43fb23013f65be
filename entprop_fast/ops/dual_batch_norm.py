"""Batch norm with main and auxiliary statistics, residual add and ReLU in one pass."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd import Function

from entprop_fast.ops import dual_batch_norm_reference as reference
from entprop_fast.ops.backend import uses_kernels
from entprop_fast.ops.dual_batch_norm_checks import check, check_backward
from entprop_fast.ops.library import call, define

SCHEMA = (
    "dual_batch_norm(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, "
    "Tensor(a!)? running_mean, Tensor(b!)? running_var, Tensor? aux_weight, Tensor? aux_bias, "
    "Tensor(c!)? aux_running_mean, Tensor(d!)? aux_running_var, int num_main, bool training, "
    "bool aux_training, float momentum, float aux_momentum, float eps, float aux_eps, bool relu) "
    "-> (Tensor y, Tensor mean, Tensor rstd, Tensor mask)"
)
BACKWARD_SCHEMA = (
    "dual_batch_norm_backward(Tensor grad, Tensor x, Tensor? residual, Tensor? weight, "
    "Tensor? bias, Tensor? aux_weight, Tensor? aux_bias, Tensor mean, Tensor rstd, Tensor mask, "
    "int num_main, bool training, bool aux_training, bool relu, bool[4] wanted) "
    "-> (Tensor dx, Tensor dresidual, Tensor dweight, Tensor dbias)"
)

# Gradients asked for: x, residual, weight, bias, aux_weight, aux_bias.
Needed: TypeAlias = tuple[bool, bool, bool, bool, bool, bool]


def _fake(
    x: Tensor, residual: Tensor | None, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    relu: bool = arguments[-1]
    mean = x.new_empty((2, x.shape[1]), dtype=reference.accumulate_dtype(x))
    mask = x.new_empty(reference.mask_shape(x, residual, relu), dtype=torch.uint8)
    return torch.empty_like(x), mean, torch.empty_like(mean), mask


def _fake_backward(
    grad: Tensor, x: Tensor, residual: Tensor | None, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean: Tensor = arguments[4]
    wanted: list[bool] = arguments[-1]
    images = [torch.empty_like(x) if want else x.new_empty(0) for want in wanted[:2]]
    parameters = [torch.empty_like(mean) if want else mean.new_empty(0) for want in wanted[2:]]
    return images[0], images[1], parameters[0], parameters[1]


OP, REFERENCE_OP = define(SCHEMA, check, reference.forward, _fake)
BACKWARD, REFERENCE_BACKWARD = define(
    BACKWARD_SCHEMA, check_backward, reference.backward, _fake_backward
)


class _DualBatchNorm(Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, residual, weight, bias = arguments[:4]
        aux_weight, aux_bias = arguments[6:8]
        num_main, training, aux_training = arguments[10:13]
        relu: bool = arguments[17]
        y, mean, rstd, mask = call(OP, x, *arguments)
        # With a mask the backward has no use for the residual: do not keep it alive.
        kept = residual if relu and mask.numel() == 0 else None
        ctx.save_for_backward(x, kept, weight, bias, aux_weight, aux_bias, mean, rstd, mask)
        ctx.settings = (num_main, training, aux_training, relu)
        ctx.eps = arguments[15:17]
        return cast(Tensor, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        need = ctx.needs_input_grad
        needed = (*need[:4], *need[6:8])
        saved = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            gradients = _differentiable_backward(grad, saved, ctx.settings, ctx.eps, needed)
        else:
            gradients = _backward(grad, saved, ctx.settings, needed)
        return (*gradients[:4], None, None, *gradients[4:], *[None] * 10)


_APPLY: Callable[..., Tensor] = _DualBatchNorm.apply


def _backward(
    grad: Tensor, saved: tuple[Tensor, ...], settings: tuple[int, bool, bool, bool], need: Needed
) -> tuple[Tensor | None, ...]:
    wanted = [need[0], need[1], need[2] or need[4], need[3] or need[5]]
    dx, dresidual, dweight, dbias = call(BACKWARD, grad, grad, *saved, *settings, wanted)
    x, _, weight, bias, aux_weight, aux_bias = saved[:6]
    has_main, has_aux = settings[0] > 0, settings[0] < x.shape[0]
    return (
        dx if need[0] else None,
        dresidual if need[1] else None,
        dweight[0].to(weight.dtype) if need[2] and has_main else None,
        dbias[0].to(bias.dtype) if need[3] and has_main else None,
        dweight[1].to(aux_weight.dtype) if need[4] and has_aux else None,
        dbias[1].to(aux_bias.dtype) if need[5] and has_aux else None,
    )


def _differentiable_backward(
    grad: Tensor,
    saved: tuple[Tensor, ...],
    settings: tuple[int, bool, bool, bool],
    eps: tuple[float, float],
    need: Needed,
) -> tuple[Tensor | None, ...]:
    """The same gradients through PyTorch's own double backward; the ReLU's mask is a constant."""
    x, residual, weight, bias, aux_weight, aux_bias, mean, rstd, mask = saved
    num_main, *training, relu = settings
    parameters = ((weight, bias), (aux_weight, aux_bias))
    if relu:
        with torch.no_grad():
            positive = reference.positive(x, residual, parameters, mean, rstd, mask, num_main)
        grad = grad * positive
    # Aliases, so that a tensor passed in two places has its two gradients apart. Not `view_as`: it
    # changes the batch's stride of a single row, from which PyTorch's backward mistakes the layout.
    inputs = [None if t is None else t[:] for t in (x, weight, bias, aux_weight, aux_bias)]
    asked = [t for t, needed in zip(inputs, (need[0], *need[2:]), strict=True) if needed]
    found: Iterator[Tensor | None] = iter(())
    if asked:  # with a frozen norm the residual alone may be
        y = reference.normalise(inputs, mean, rstd, num_main, training, eps)
        found = iter(torch.autograd.grad(y, asked, grad, create_graph=True, allow_unused=True))
    gradients = [next(found) if needed else None for needed in (need[0], *need[2:])]
    return gradients[0], grad if need[1] else None, *gradients[1:]


def dual_batch_norm(
    x: Tensor,
    residual: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    aux_weight: Tensor | None = None,
    aux_bias: Tensor | None = None,
    aux_running_mean: Tensor | None = None,
    aux_running_var: Tensor | None = None,
    num_main: int | None = None,
    training: bool = True,
    aux_training: bool = True,
    momentum: float = 0.1,
    aux_momentum: float = 0.1,
    eps: float = 1e-5,
    aux_eps: float = 1e-5,
    relu: bool = False,
) -> Tensor:
    """Batch norm of rows `[0, num_main)` with main, of the rest with auxiliary parameters.

    The paper's main and auxiliary batch norms (its MBN and ABN), in one pass over the
    bytes of one norm: `y = relu?(norm(x) + residual?)`. `num_main = N` and `0` are the pure
    cases; a group without rows is untouched.

    Args:
        x: [N, C, ...], floating; any layout, kept by the result.
        residual: added after the norm, shape and dtype of `x`, or None.
        weight, bias, aux_weight, aux_bias: [C] or None.
        running_mean, running_var, aux_running_mean, aux_running_var: [C] or None; moved in place
            (the variance unbiased) when the group trains, used as they are when it does not. One
            that moves shares no memory with another argument that is read or moved.
        num_main: rows of the main group, or None for all of them.
        training, aux_training: batch statistics (True) or running ones, for each group.
        momentum, aux_momentum, eps, aux_eps: as in `F.batch_norm`, for each group.
        relu: apply ReLU last.

    Returns:
        y, shaped like `x`.

    Raises:
        ValueError: `num_main` outside `[0, N]`, a shape, dtype or device that does not fit, a
            training group with one value a channel, a frozen group without running statistics, an
            eps that `F.batch_norm` refuses, or statistics that share memory.
    """
    if num_main is None:
        num_main = x.shape[0]
    arguments = (
        x,
        residual,
        weight,
        bias,
        running_mean,
        running_var,
        aux_weight,
        aux_bias,
        aux_running_mean,
        aux_running_var,
        num_main,
        training,
        aux_training,
        momentum,
        aux_momentum,
        eps,
        aux_eps,
        relu,
    )
    if uses_kernels(x):
        return _APPLY(*arguments)
    check(*arguments)
    return reference.dual_batch_norm(*arguments)
