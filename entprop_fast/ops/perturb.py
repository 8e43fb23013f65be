"""The adversarial step: sign of the gradient, radius around the start, image range."""

import torch
from torch import Tensor

from entprop_fast.ops.backend import uses_kernels
from entprop_fast.ops.layout import memory_format
from entprop_fast.ops.library import define

_BOUNDS = "Tensor alpha, Tensor eps, Tensor lo, Tensor hi"
GATHER_SCHEMA = f"gather_perturb(Tensor x, Tensor grad, Tensor index, {_BOUNDS}) -> Tensor"
GATHER_OUT_SCHEMA = (
    f"gather_perturb.out(Tensor x, Tensor grad, Tensor index, {_BOUNDS}, *, Tensor(a!) out) -> ()"
)
PERTURB_SCHEMA = f"perturb_(Tensor(a!) x_adv, Tensor grad, Tensor x, Tensor index, {_BOUNDS}) -> ()"


def _channels(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (x.dim() - 2))


def _clipped(start: Tensor, moved: Tensor, eps: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    eps, lo, hi = (_channels(value, start) for value in (eps, lo, hi))
    return (start + moved.clamp(-eps, eps)).clamp(lo, hi)


def _empty_rows(x: Tensor, rows: int) -> Tensor:
    return torch.empty(
        (rows, *x.shape[1:]), dtype=x.dtype, device=x.device, memory_format=memory_format(x)
    )


def gather_reference(
    x: Tensor, grad: Tensor, index: Tensor, alpha: Tensor, eps: Tensor, lo: Tensor, hi: Tensor
) -> Tensor:
    """The op `gather_perturb` in plain PyTorch."""
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
    """The op `gather_perturb.out` in plain PyTorch."""
    step = _channels(alpha, x) * grad[index].sign()
    out.copy_(_clipped(x[index], step, eps, lo, hi))


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
    """The op `perturb_` in plain PyTorch."""
    start = x[index]
    moved = x_adv - start + _channels(alpha, x) * grad.sign()
    x_adv.copy_(_clipped(start, moved, eps, lo, hi))


def _fake_gather(x: Tensor, grad: Tensor, index: Tensor, *bounds: Tensor) -> Tensor:
    return _empty_rows(x, index.shape[0])


def _fake_in_place(*arguments: Tensor, out: Tensor | None = None) -> None:
    return None


GATHER, REFERENCE_GATHER = define(GATHER_SCHEMA, gather_reference, _fake_gather)
GATHER_OUT, REFERENCE_GATHER_OUT = define(GATHER_OUT_SCHEMA, gather_out_reference, _fake_in_place)
PERTURB, REFERENCE_PERTURB = define(PERTURB_SCHEMA, perturb_reference, _fake_in_place)


def _check(
    x: Tensor, index: Tensor, bounds: dict[str, Tensor], images: dict[str, tuple[Tensor, int]]
) -> None:
    """`images` holds each image tensor beside the rows it should have."""
    shape, dtype = x.shape, x.dtype
    if len(shape) < 2 or not dtype.is_floating_point:
        raise ValueError(f"x: expected floating [N, C, ...], got {dtype} {tuple(shape)}")
    if index.dtype != torch.int64 or index.dim() != 1:
        raise ValueError(f"index: expected int64 [m], got {index.dtype} {tuple(index.shape)}")
    channels, image = shape[1:2], shape[1:]
    for name, value in bounds.items():
        if value.shape != channels or value.dtype != dtype:
            raise ValueError(
                f"{name}: expected {dtype} [{shape[1]}], a value a channel of x, got "
                f"{value.dtype} {tuple(value.shape)}"
            )
    for name, (value, rows) in images.items():
        found = value.shape
        if found[1:] != image or found[0] != rows or value.dtype != dtype:
            raise ValueError(
                f"{name}: expected {dtype} {(rows, *image)}, got {value.dtype} {tuple(found)}"
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
    """First adversarial images of the selected rows (docs/algorithm.md, (4) and (5)).

    `clip(x[index] + clip(alpha*sign(grad[index]), -eps, eps), lo, hi)`; sign(0) = 0. Carries no
    gradient.

    Args:
        x, grad: [N, C, ...], the images and the loss's gradient in them; dtype of each other.
        index: int64 [m], rows of `x`; negative ones count from the end, as in `x[index]`.
        alpha, eps: [C] in `x`'s dtype: step and radius in the units of `x` (1/255 for images in
            [0, 1]; divided by the channel's std where the images are normalised).
        lo, hi: [C] in `x`'s dtype: the image range.
        out: [m, C, ...] written and returned, or None for a fresh tensor.

    Raises:
        ValueError: a shape or dtype that does not fit.
        IndexError: a row outside `x`, on the CPU (a RuntimeError that quotes it where the C++
            kernels hand an input to plain PyTorch). On CUDA nothing waits for the values: the
            kernels make such a row NaN.
    """
    bounds = {"alpha": alpha, "eps": eps, "lo": lo, "hi": hi}
    images = {"grad": (grad, x.shape[0])}
    if out is not None:
        images["out"] = (out, index.shape[0])
    _check(x, index, bounds, images)
    with torch.no_grad():
        if out is None:
            gather = GATHER if uses_kernels(x) else gather_reference
            fresh: Tensor = gather(x, grad, index, alpha, eps, lo, hi)
            return fresh
        gather_out = GATHER_OUT if uses_kernels(x) else gather_out_reference
        gather_out(x, grad, index, alpha, eps, lo, hi, out=out)
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
    """One more adversarial step, in place (docs/algorithm.md, (5)).

    `clip(x0 + clip(x_adv - x0 + alpha*sign(grad), -eps, eps), lo, hi)` with `x0 = x[index]`, read
    where it lies. Carries no gradient.

    Args:
        x_adv: [m, C, ...], changed in place.
        grad: like `x_adv`, the loss's gradient in it.
        x: [N, C, ...], the images the attack started from.
        index: int64 [m], the row of `x` each row of `x_adv` started from, as in `x[index]`.
        alpha, eps, lo, hi: [C] in `x`'s dtype, as in `gather_perturb`.

    Returns:
        `x_adv`.

    Raises:
        ValueError: a shape or dtype that does not fit.
        IndexError: a row outside `x`, as in `gather_perturb`.
    """
    bounds = {"alpha": alpha, "eps": eps, "lo": lo, "hi": hi}
    rows = index.shape[0]
    _check(x, index, bounds, {"x_adv": (x_adv, rows), "grad": (grad, rows)})
    with torch.no_grad():
        perturb = PERTURB if uses_kernels(x_adv) else perturb_reference
        perturb(x_adv, grad, x, index, alpha, eps, lo, hi)
    return x_adv
