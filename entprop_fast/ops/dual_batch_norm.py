"""Compute batch norm with main and auxiliary statistics, residual sum and ReLU in one pass."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from entprop_fast.norm_half import PLAIN, Half, Normed
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
    addend: bool
    residual: bool
    weight: bool
    bias: bool
    aux_weight: bool
    aux_bias: bool


def _fake(
    x: Tensor,
    residual: Tensor | None,
    main: Half,
    aux: Half,
    num_main: int,
    relu: bool,
    addend: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    mean = x.new_empty((2, x.shape[1]), dtype=reference.accumulate_dtype(x))
    mask = x.new_empty(reference.mask_shape(x, residual, relu), dtype=torch.uint8)
    total = x.new_empty(0) if addend is None else torch.empty_like(x)
    return torch.empty_like(x), mean, torch.empty_like(mean), mask, total


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
    again: Tensor | None = None,
    dtotal: Tensor | None = None,
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
        addend: Tensor | None,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        aux_weight: Tensor | None,
        aux_bias: Tensor | None,
        main: Half,
        aux: Half,
        num_main: int,
        relu: bool,
        twice: bool,
    ) -> Tensor | tuple[Tensor | None, ...]:
        y: Tensor
        given = flat(x, residual, main, aux, num_main, relu, addend)
        y, mean, rstd, mask, total = call(OP, x, *given)
        # With a mask the backward has no use for the residual: do not keep it alive.
        kept = residual if relu and mask.numel() == 0 else None
        normalised = x if addend is None else total
        affine = (weight, bias, aux_weight, aux_bias)
        # In the order of BACKWARD_SCHEMA, as the settings.
        ctx.save_for_backward(normalised, kept, *affine, mean, rstd, mask)
        ctx.settings = (num_main, main.training, aux.training, relu)
        ctx.eps = main.eps, aux.eps
        if addend is None and not twice:
            return y
        ctx.set_materialize_grads(False)
        if addend is not None and not any(ctx.needs_input_grad[:2]):
            ctx.mark_non_differentiable(total)
        # A view, so that autograd refuses either where the other was changed in place. `[:]` as
        # below; `detach` would hide the change.
        return y, y[:] if twice else None, None if addend is None else total

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, again: Tensor | None = None, dtotal: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        need = _Needed(*ctx.needs_input_grad[:7])
        if grad is None:
            grad, again = again, None
        if grad is None:  # only the sum was used
            found: tuple[Tensor | None, ...] = (dtotal, *[None] * 5)
        elif torch.is_grad_enabled() and not torch.compiler.is_compiling():
            grad = grad if again is None else grad + again
            found = _differentiable_backward(grad, ctx.saved_tensors, ctx.settings, ctx.eps, need)
            if dtotal is not None:
                found = (None if found[0] is None else found[0] + dtotal, *found[1:])
        else:
            found = _backward(grad, ctx.saved_tensors, ctx.settings, need, again, dtotal)
        dx, *others = found
        sums = dx if need.x else None, dx if need.addend else None
        return *sums, *others, None, None, None, None, None


_APPLY: Callable[..., Any] = _DualBatchNorm.apply


def _backward(
    grad: Tensor,
    saved: tuple[Tensor, ...],
    settings: tuple[int, bool, bool, bool],
    need: _Needed,
    again: Tensor | None,
    dtotal: Tensor | None,
) -> tuple[Tensor | None, ...]:
    reads_x = need.x or need.addend
    wanted = [reads_x, need.residual, need.weight or need.aux_weight, need.bias or need.aux_bias]
    given = (grad, *saved, *settings, wanted, again, dtotal)
    dx, dresidual, dweight, dbias = call(BACKWARD, grad, *given)
    x, _, weight, bias, aux_weight, aux_bias, *_ = saved
    has_main, has_aux = settings[0] > 0, settings[0] < x.shape[0]
    return (
        dx if reads_x else None,
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
    needed = (need.x or need.addend, need.weight, need.bias, need.aux_weight, need.aux_bias)
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
    return dual_batch_norm_outputs(x, main, aux, num_main, residual=residual, relu=relu).y


def dual_batch_norm_outputs(
    x: Tensor,
    main: Half = PLAIN,
    aux: Half = PLAIN,
    num_main: int | None = None,
    *,
    residual: Tensor | None = None,
    relu: bool = False,
    addend: Tensor | None = None,
    twice: bool = False,
) -> Normed:
    """Compute `dual_batch_norm(x + addend)` with the sums around it in the passes of the norm.

    `x + addend` is written while its statistics are taken, and the gradients of what is returned
    are added up as the backward reads or writes them: the same bits as sums of their own, without
    their launches and passes over memory. Other arguments and errors are `dual_batch_norm`'s.

    Args:
        x: [N, C, ...], floating.
        main, aux: parameters, running statistics and settings of each half.
        num_main: rows of the main half, or None for all of them.
        residual: added after the norm, or None.
        relu: apply ReLU last.
        addend: added before the norm, shape and dtype of `x`, or None.
        twice: return `y` once more, for a second reader.
    """
    if num_main is None:
        num_main = x.shape[0]
    if uses_kernels(x):
        affine = (main.weight, main.bias, aux.weight, aux.bias)
        # A compiler's graph adds up the gradients by itself; it knows no views among outputs.
        twice = twice and not torch.compiler.is_compiling()
        found = _APPLY(x, addend, residual, *affine, main, aux, num_main, relu, twice)
        if addend is None and not twice:
            return Normed(found, found, x)
        y, again, total = found
        return Normed(y, again if twice else y, x if addend is None else total)
    check(x, residual, main, aux, num_main, relu, addend)
    total = x if addend is None else x + addend
    y = reference.dual_batch_norm(total, residual, main, aux, num_main, relu)
    return Normed(y, y, total)
