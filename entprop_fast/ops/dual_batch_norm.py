"""Compute batch norm with main and auxiliary statistics, residual sum and ReLU in one pass."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from entprop_fast.norm_half import PLAIN, Half
from entprop_fast.ops import dual_batch_norm_reference as reference
from entprop_fast.ops.backend import uses_kernels
from entprop_fast.ops.dual_batch_norm_checks import check, check_backward
from entprop_fast.ops.dual_batch_norm_schema import (
    BACKWARD_SCHEMA,
    SCHEMA,
    flat,
    from_flat,
    from_flat_backward,
)
from entprop_fast.ops.library import call, define


class _Needed(NamedTuple):
    """Tell which gradients are asked for; also the order in which autograd gets them."""

    x: bool
    residual: bool
    weight: bool
    bias: bool
    aux_weight: bool
    aux_bias: bool


def _fake(
    x: Tensor, residual: Tensor | None, main: Half, aux: Half, num_main: int, relu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean = x.new_empty((2, x.shape[1]), dtype=reference.accumulate_dtype(x))
    mask = x.new_empty(reference.mask_shape(x, residual, relu), dtype=torch.uint8)
    return torch.empty_like(x), mean, torch.empty_like(mean), mask


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    main: Half,
    aux: Half,
    mean: Tensor,
    rstd: Tensor,
    mask: Tensor,
    num_main: int,
    relu: bool,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = (x, x, mean, mean)
    dx, dresidual, dweight, dbias = (
        torch.empty_like(t) if want else t.new_empty(0)
        for t, want in zip(like, wanted, strict=True)
    )
    return dx, dresidual, dweight, dbias


OP, REFERENCE_OP = define(SCHEMA, check, reference.forward, _fake, from_flat)
BACKWARD, REFERENCE_BACKWARD = define(
    BACKWARD_SCHEMA, check_backward, reference.backward, _fake_backward, from_flat_backward
)


class _DualBatchNorm(Function):
    """Take what may have a gradient one by one: autograd sees no tensor inside of a struct."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        aux_weight: Tensor | None,
        aux_bias: Tensor | None,
        main: Half,
        aux: Half,
        num_main: int,
        relu: bool,
    ) -> Tensor:
        y: Tensor
        y, mean, rstd, mask = call(OP, x, *flat(x, residual, main, aux, num_main, relu))
        # With a mask the backward has no use for the residual: do not keep it alive.
        kept = residual if relu and mask.numel() == 0 else None
        # In the order of BACKWARD_SCHEMA, as the settings.
        ctx.save_for_backward(x, kept, weight, bias, aux_weight, aux_bias, mean, rstd, mask)
        ctx.settings = (num_main, main.training, aux.training, relu)
        ctx.eps = main.eps, aux.eps
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        need = _Needed(*ctx.needs_input_grad[:6])
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            found = _differentiable_backward(grad, ctx.saved_tensors, ctx.settings, ctx.eps, need)
        else:
            found = _backward(grad, ctx.saved_tensors, ctx.settings, need)
        return *found, None, None, None, None


_APPLY: Callable[..., Tensor] = _DualBatchNorm.apply


def _backward(
    grad: Tensor, saved: tuple[Tensor, ...], settings: tuple[int, bool, bool, bool], need: _Needed
) -> tuple[Tensor | None, ...]:
    wanted = [need.x, need.residual, need.weight or need.aux_weight, need.bias or need.aux_bias]
    dx, dresidual, dweight, dbias = call(BACKWARD, grad, grad, *saved, *settings, wanted)
    x, _, weight, bias, aux_weight, aux_bias, *_ = saved
    has_main, has_aux = settings[0] > 0, settings[0] < x.shape[0]
    return (
        dx if need.x else None,
        dresidual if need.residual else None,
        dweight[0].to(weight.dtype) if need.weight and has_main else None,
        dbias[0].to(bias.dtype) if need.bias and has_main else None,
        dweight[1].to(aux_weight.dtype) if need.aux_weight and has_aux else None,
        dbias[1].to(aux_bias.dtype) if need.aux_bias and has_aux else None,
    )


def _differentiable_backward(
    grad: Tensor,
    saved: tuple[Tensor, ...],
    settings: tuple[int, bool, bool, bool],
    eps: tuple[float, float],
    need: _Needed,
) -> tuple[Tensor | None, ...]:
    """Return the same gradients through PyTorch's own double backward.

    The ReLU's mask is a constant.
    """
    num_main, training, aux_training, relu = settings
    x, residual, *_, mean, rstd, mask = saved
    # Aliases, so that a tensor passed in two places has its two gradients apart. Not `view_as`: it
    # changes the batch's stride of a single row, from which PyTorch's backward mistakes the layout.
    rows, _, weight, bias, aux_weight, aux_bias, *_ = (None if t is None else t[:] for t in saved)
    main = Half(weight, bias, training=training, eps=eps[0])
    aux = Half(aux_weight, aux_bias, training=aux_training, eps=eps[1])
    if relu:
        with torch.no_grad():
            positive = reference.positive(x, residual, (main, aux), mean, rstd, mask, num_main)
        grad = grad * positive
    inputs: list[Any] = [rows, weight, bias, aux_weight, aux_bias]
    needed = (need.x, need.weight, need.bias, need.aux_weight, need.aux_bias)
    asked = [t for t, wanted in zip(inputs, needed, strict=True) if wanted]
    found: Iterator[Tensor | None] = iter(())
    if asked:  # with a frozen norm the residual alone may be
        y = reference.normalise(inputs[0], (main, aux), mean, rstd, num_main)
        found = iter(torch.autograd.grad(y, asked, grad, create_graph=True, allow_unused=True))
    dx, *affine = [next(found) if wanted else None for wanted in needed]
    return dx, grad if need.residual else None, *affine


def dual_batch_norm(
    x: Tensor,
    main: Half = PLAIN,
    aux: Half = PLAIN,
    num_main: int | None = None,
    *,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Normalise rows `[0, num_main)` by the main half, the rest by the auxiliary one.

    The paper's main and auxiliary batch norms (its MBN and ABN), in one pass over the
    bytes of one norm: `y = relu?(norm(x) + residual?)`. `num_main = N` and `0` are the pure
    cases; a half without rows is untouched.

    Args:
        x: [N, C, ...], floating; any layout, kept by the result.
        main, aux: parameters, running statistics and settings of each half. Running statistics that
            move share no memory with another argument that is read or moved.
        num_main: rows of the main half, or None for all of them.
        residual: added after the norm, shape and dtype of `x`, or None.
        relu: apply ReLU last.

    Returns:
        y, shaped like `x`.

    Raises:
        ValueError: `num_main` outside `[0, N]`, a shape, dtype or device that does not fit, a
            training half with one value a channel, a frozen half without running statistics, an
            eps that `F.batch_norm` refuses, or statistics that share memory.
    """
    if num_main is None:
        num_main = x.shape[0]
    if uses_kernels(x):
        affine = (main.weight, main.bias, aux.weight, aux.bias)
        return _APPLY(x, residual, *affine, main, aux, num_main, relu)
    check(x, residual, main, aux, num_main, relu)
    return reference.dual_batch_norm(x, residual, main, aux, num_main, relu)
