"""Take the adversarial step: sign of the gradient, radius around the start, image range."""

from math import nan
from typing import cast

import torch
from torch import Tensor

from entprop_fast.ops.backend import uses_kernels
from entprop_fast.ops.layout import memory_format
from entprop_fast.ops.library import define
from entprop_fast.ops.tensor_checks import require, require_apart, require_floating, require_index

_BOUNDS = "Tensor alpha, Tensor eps, Tensor lo, Tensor hi"
GATHER_SCHEMA = f"gather_perturb(Tensor x, Tensor grad, Tensor index, {_BOUNDS}) -> Tensor"
GATHER_OUT_SCHEMA = (
    f"gather_perturb.out(Tensor x, Tensor grad, Tensor index, {_BOUNDS}, *, Tensor(a!) out) -> ()"
)
PERTURB_SCHEMA = f"perturb_(Tensor(a!) x_adv, Tensor grad, Tensor x, Tensor index, {_BOUNDS}) -> ()"


# Types of devices whose own indexing raises for a row outside; elsewhere it would fault, or worse.
RAISING = ("cpu", "meta")


def _channels(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (x.dim() - 2))


def _clipped(start: Tensor, moved: Tensor, eps: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    eps, lo, hi = (_channels(value, start) for value in (eps, lo, hi))
    return (start + moved.clamp(-eps, eps)).clamp(lo, hi)


def _empty_rows(x: Tensor, rows: int) -> Tensor:
    return torch.empty(
        (rows, *x.shape[1:]), dtype=x.dtype, device=x.device, memory_format=memory_format(x)
    )


def _check(
    x: Tensor, index: Tensor, alpha: Tensor, eps: Tensor, lo: Tensor, hi: Tensor
) -> tuple[tuple[str, Tensor], ...]:
    """Check what all of the ops take; the tensors by name."""
    require_floating("x", x, "[N, C, ...]", x.dim() >= 2)
    require_index("index", index, None, x)
    bounds = (("alpha", alpha), ("eps", eps), ("lo", lo), ("hi", hi))
    for name, value in bounds:
        require(name, value, x.shape[1:2], x.dtype, x)
    if x.shape[0] == 0 < index.shape[0]:
        raise IndexError(f"index: expected int64 [0], x has no rows, got {list(index.shape)}")
    return (("x", x), ("index", index), *bounds)


def check_gather(x: Tensor, grad: Tensor, index: Tensor, *bounds: Tensor) -> None:
    """Refuse arguments of `gather_perturb` that do not fit."""
    _check(x, index, *bounds)
    require("grad", grad, x.shape, x.dtype, x)


def check_gather_out(x: Tensor, grad: Tensor, index: Tensor, *bounds: Tensor, out: Tensor) -> None:
    """Refuse arguments of `gather_perturb.out` that do not fit."""
    others = _check(x, index, *bounds)
    require("grad", grad, x.shape, x.dtype, x)
    require("out", out, (index.shape[0], *x.shape[1:]), x.dtype, x)
    require_apart([("out", out)], [*others, ("grad", grad)])


def check_perturb(x_adv: Tensor, grad: Tensor, x: Tensor, index: Tensor, *bounds: Tensor) -> None:
    """Refuse arguments of `perturb_` that do not fit."""
    others = _check(x, index, *bounds)
    shape = (index.shape[0], *x.shape[1:])
    require("x_adv", x_adv, shape, x.dtype, x)
    require("grad", grad, shape, x.dtype, x)
    require_apart([("x_adv", x_adv)], [*others, ("grad", grad)])


def _rows(index: Tensor, available: int) -> tuple[Tensor, Tensor | None]:
    """Return the index and, on a device that would fault, which of it, made 0, is outside of x.

    The CPU's own indexing raises for them. Elsewhere nothing waits for the values: those rows
    become NaN.
    """
    if index.device.type in RAISING:
        return index, None
    outside = (index < -available) | (index >= available)
    return index.masked_fill(outside, 0), outside


def _blank(images: Tensor, rows: Tensor | None) -> Tensor:
    return images if rows is None else images.masked_fill(_channels(rows, images)[:, None], nan)


def gather_reference(
    x: Tensor, grad: Tensor, index: Tensor, alpha: Tensor, eps: Tensor, lo: Tensor, hi: Tensor
) -> Tensor:
    """Compute the op `gather_perturb` in plain PyTorch."""
    out = _empty_rows(x, index.shape[0])
    gather_out_reference(x, grad, index, alpha, eps, lo, hi, out=out)
    return out


def gather_out_reference(
    x: Tensor,
    grad: Tensor,
    index: Tensor,
    alpha: Tensor,
    eps: Tensor,
    lo: Tensor,
    hi: Tensor,
    *,
    out: Tensor,
) -> None:
    """Compute the op `gather_perturb.out` in plain PyTorch."""
    rows, outside = _rows(index, x.shape[0])
    step = _channels(alpha, x) * grad[rows].sign()
    out.copy_(_blank(_clipped(x[rows], step, eps, lo, hi), outside))


def perturb_reference(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    index: Tensor,
    alpha: Tensor,
    eps: Tensor,
    lo: Tensor,
    hi: Tensor,
) -> None:
    """Compute the op `perturb_` in plain PyTorch."""
    rows, outside = _rows(index, x.shape[0])
    start = x[rows]
    moved = x_adv - start + _channels(alpha, x) * grad.sign()
    x_adv.copy_(_blank(_clipped(start, moved, eps, lo, hi), outside))


def _fake_gather(x: Tensor, grad: Tensor, index: Tensor, *bounds: Tensor) -> Tensor:
    return _empty_rows(x, index.shape[0])


def _fake_in_place(*arguments: Tensor, out: Tensor | None = None) -> None:
    return None


GATHER, REFERENCE_GATHER = define(GATHER_SCHEMA, check_gather, gather_reference, _fake_gather)
GATHER_OUT, REFERENCE_GATHER_OUT = define(
    GATHER_OUT_SCHEMA, check_gather_out, gather_out_reference, _fake_in_place
)
PERTURB, REFERENCE_PERTURB = define(
    PERTURB_SCHEMA, check_perturb, perturb_reference, _fake_in_place
)


def gather_perturb(
    x: Tensor,
    grad: Tensor,
    index: Tensor,
    alpha: Tensor,
    eps: Tensor,
    lo: Tensor,
    hi: Tensor,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Return the first adversarial images of the selected rows (docs/algorithm.md, (4) and (5)).

    `clip(x[index] + clip(alpha*sign(grad[index]), -eps, eps), lo, hi)`; sign(0) = 0. Carries no
    gradient.

    Args:
        x, grad: [N, C, ...], the images and the loss's gradient in them; dtype of each other.
        index: int64 [m], rows of `x`; negative ones count from the end, as in `x[index]`.
        alpha, eps: [C] in `x`'s dtype: step and radius in the units of `x` (1/255 for images in
            [0, 1]; divided by the channel's std where the images are normalised).
        lo, hi: [C] in `x`'s dtype: the image range.
        out: [m, C, ...] written and returned, or None for a fresh tensor; memory of its own.

    Raises:
        ValueError: a shape, dtype or device that does not fit; `out` shares memory with an input.
        IndexError: a row outside `x`, on the CPU. On other devices nothing waits for the values:
            such a row becomes NaN.
    """
    arguments = (x, grad, index, alpha, eps, lo, hi)
    with torch.no_grad():
        if out is None:
            if uses_kernels(x):
                return cast(Tensor, GATHER(*arguments))
            check_gather(*arguments)
            return gather_reference(*arguments)
        if uses_kernels(x):
            GATHER_OUT(*arguments, out=out)
        else:
            check_gather_out(*arguments, out=out)
            gather_out_reference(*arguments, out=out)
        return out


def perturb_(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    index: Tensor,
    alpha: Tensor,
    eps: Tensor,
    lo: Tensor,
    hi: Tensor,
) -> Tensor:
    """Take one more adversarial step, in place (docs/algorithm.md, (5)).

    `clip(x0 + clip(x_adv - x0 + alpha*sign(grad), -eps, eps), lo, hi)` with `x0 = x[index]`, read
    where it lies. Carries no gradient.

    Args:
        x_adv: [m, C, ...], changed in place; memory of its own.
        grad: like `x_adv`, the loss's gradient in it.
        x: [N, C, ...], the images the attack started from.
        index: int64 [m], the row of `x` each row of `x_adv` started from, as in `x[index]`.
        alpha, eps, lo, hi: [C] in `x`'s dtype, as in `gather_perturb`.

    Returns:
        `x_adv`.

    Raises:
        ValueError: a shape, dtype or device that does not fit; `x_adv` shares memory with another.
        IndexError: a row outside `x`, as in `gather_perturb`.
    """
    arguments = (x_adv, grad, x, index, alpha, eps, lo, hi)
    with torch.no_grad():
        if uses_kernels(x_adv):
            PERTURB(*arguments)
        else:
            check_perturb(*arguments)
            perturb_reference(*arguments)
    return x_adv
