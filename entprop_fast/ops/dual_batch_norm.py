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
    flat_backward,
    flat_gradients,
    from_flat,
    from_flat_backward,
)
from entprop_fast.ops.library import call, define


class _Saved(NamedTuple):
    """Hold what the forward keeps: tensors through autograd, which watches over their versions."""

    x: Tensor
    residual: Tensor | None
    main: Half  # without running statistics
    aux: Half
    mean: Tensor
    rstd: Tensor
    mask: Tensor
    num_main: int
    relu: bool


class _Needed(NamedTuple):
    """Tell which gradients are asked for."""

    x: bool
    residual: bool
    main: Half  # flags in place of tensors
    aux: Half


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
    """Take flat arguments: autograd sees no tensor inside of a struct."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x, residual, main, aux, num_main, relu = from_flat(*arguments)
        y: Tensor
        y, mean, rstd, mask = call(OP, x, *arguments)
        # With a mask the backward has no use for the residual: do not keep it alive.
        kept = residual if relu and mask.numel() == 0 else None
        ctx.save_for_backward(
            x, kept, main.weight, main.bias, aux.weight, aux.bias, mean, rstd, mask
        )
        ctx.settings = (main.training, main.eps, aux.training, aux.eps, num_main, relu)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, residual, weight, bias, aux_weight, aux_bias, mean, rstd, mask = ctx.saved_tensors
        training, eps, aux_training, aux_eps, num_main, relu = ctx.settings
        main = Half(weight, bias, training=training, eps=eps)
        aux = Half(aux_weight, aux_bias, training=aux_training, eps=aux_eps)
        saved = _Saved(x, residual, main, aux, mean, rstd, mask, num_main, relu)
        need_x, need_residual, need_main, need_aux, _, _ = from_flat(*ctx.needs_input_grad)
        need: Any = _Needed(need_x, need_residual, need_main, need_aux)  # type: ignore[arg-type]
        differentiable = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return (_differentiable_backward if differentiable else _backward)(grad, saved, need)


_APPLY: Callable[..., Tensor] = _DualBatchNorm.apply


def _backward(grad: Tensor, saved: _Saved, need: _Needed) -> tuple[Tensor | None, ...]:
    x, _, main, aux, _, _, _, num_main, _ = saved
    wanted = [
        need.x,
        need.residual,
        bool(need.main.weight or need.aux.weight),
        bool(need.main.bias or need.aux.bias),
    ]
    dx, dresidual, dweight, dbias = call(BACKWARD, grad, *flat_backward(grad, *saved, wanted))

    has_main, has_aux = num_main > 0, num_main < x.shape[0]
    return flat_gradients(
        dx if need.x else None,
        dresidual if need.residual else None,
        _like(main.weight, dweight[0]) if need.main.weight and has_main else None,
        _like(main.bias, dbias[0]) if need.main.bias and has_main else None,
        _like(aux.weight, dweight[1]) if need.aux.weight and has_aux else None,
        _like(aux.bias, dbias[1]) if need.aux.bias and has_aux else None,
    )


def _like(parameter: Tensor | None, gradient: Tensor) -> Tensor | None:
    return None if parameter is None else gradient.to(parameter.dtype)


def _differentiable_backward(
    grad: Tensor, saved: _Saved, need: _Needed
) -> tuple[Tensor | None, ...]:
    """Return the same gradients through PyTorch's own double backward.

    The ReLU's mask is a constant.
    """
    x, residual, main, aux, mean, rstd, mask, num_main, relu = saved
    if relu:
        with torch.no_grad():
            positive = reference.positive(x, residual, (main, aux), mean, rstd, mask, num_main)
        grad = grad * positive
    # Aliases, so that a tensor passed in two places has its two gradients apart. Not `view_as`: it
    # changes the batch's stride of a single row, from which PyTorch's backward mistakes the layout.
    affine = (main.weight, main.bias, aux.weight, aux.bias)
    inputs: list[Any] = [x[:], *(None if t is None else t[:] for t in affine)]
    needed = (need.x, need.main.weight, need.main.bias, need.aux.weight, need.aux.bias)
    asked = [t for t, wanted in zip(inputs, needed, strict=True) if wanted]
    found: Iterator[Tensor | None] = iter(())
    if asked:  # with a frozen norm the residual alone may be
        rows, weight, bias, aux_weight, aux_bias = inputs
        main, aux = (
            main._replace(weight=weight, bias=bias),
            aux._replace(weight=aux_weight, bias=aux_bias),
        )
        y = reference.normalise(rows, (main, aux), mean, rstd, num_main)
        found = iter(torch.autograd.grad(y, asked, grad, create_graph=True, allow_unused=True))
    dx, *affine_gradients = [next(found) if wanted else None for wanted in needed]
    return flat_gradients(dx, grad if need.residual else None, *affine_gradients)


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
    arguments = (x, residual, main, aux, x.shape[0] if num_main is None else num_main, relu)
    if uses_kernels(x):
        return _APPLY(*flat(*arguments))
    check(*arguments)
    return reference.dual_batch_norm(*arguments)
