"""Check the arguments of dual_batch_norm and its backward, for kernels and reference alike."""

import torch
from torch import Tensor

from entprop_fast.norm_half import Half
from entprop_fast.ops.dual_batch_norm_reference import accumulate_dtype, mask_shape
from entprop_fast.ops.tensor_checks import require, require_apart, require_device, require_floating


def check(
    x: Tensor,
    residual: Tensor | None,
    main: Half,
    aux: Half,
    num_main: int,
    relu: bool,
    addend: Tensor | None = None,
) -> None:
    """Refuse arguments of the op that do not fit."""
    check_images(x, residual, num_main)
    _check_like("addend", addend, x)
    named = {"": _named(main), "aux_": _named(aux, "aux_")}
    for name, parameter in (*named[""], *named["aux_"]):
        _check_parameter(name, parameter, x)
    moved: list[tuple[str, Tensor | None]] = []
    read = [("x", x), ("residual", residual), ("addend", addend)]
    read += [*named[""][:2], *named["aux_"][:2]]
    for prefix, half, count in (("", main, num_main), ("aux_", aux, x.shape[0] - num_main)):
        if half.num_batches is not None:
            require(f"{prefix}num_batches", half.num_batches, (), torch.int64, x)
        # An empty batch is the main half's.
        if count or (prefix == "" and x.shape[0] == 0):
            (moved if half.training else read).extend(named[prefix][2:])
            if half.training:
                moved.append((f"{prefix}num_batches", half.num_batches))
            _check_group(prefix, half, count, x)
    require_apart(moved, read)


def check_backward(
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
) -> None:
    """Refuse arguments of the backward that do not fit."""
    check_images(x, residual, num_main)
    for name, gradient in (("grad", grad), ("again", again), ("dtotal", dtotal)):
        _check_like(name, gradient, x)
    for name, parameter in (*_named(main)[:2], *_named(aux, "aux_")[:2]):
        _check_parameter(name, parameter, x)
    for name, statistic in (("mean", mean), ("rstd", rstd)):
        require(name, statistic, (2, x.shape[1]), accumulate_dtype(x), x)
    _check_mask(mask, x)
    if len(wanted) != 4:
        raise ValueError(f"wanted={wanted}: expected four of True and False")


def _named(half: Half, prefix: str = "") -> list[tuple[str, Tensor | None]]:
    """Name the tensors of a half, the affine parameters first."""
    names = [f"{prefix}{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    return list(zip(names, half.tensors, strict=True))


def _check_group(prefix: str, half: Half, count: int, x: Tensor) -> None:
    """Check what a half needs to normalise `count` rows."""
    trains, eps = half.training, half.eps
    if trains and count * x.shape[2:].numel() == 1:
        size = torch.Size((count, *x.shape[1:]))  # in the words of F.batch_norm
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {size}"
        )
    if not trains and (half.running_mean is None or half.running_var is None):
        raise ValueError(
            f"{prefix}running_mean, {prefix}running_var: needed with {prefix}training=False"
        )
    if eps < 0 or (trains and eps == 0):
        sign = "above 0 in training" if trains else "0 or more"
        raise ValueError(f"{prefix}eps={eps}: expected {sign}")


def check_images(x: Tensor, residual: Tensor | None, num_main: int) -> None:
    """Refuse images, residual or a number of rows that no op of the norm takes."""
    require_floating("x", x, "[N, C, ...]", x.dim() >= 2)
    if not 0 <= num_main <= x.shape[0]:
        raise ValueError(f"num_main={num_main}: expected 0 to {x.shape[0]}, the rows of x")
    _check_like("residual", residual, x)


def _check_like(name: str, value: Tensor | None, x: Tensor) -> None:
    if value is not None:
        require(name, value, x.shape, x.dtype, x)


def _check_parameter(name: str, value: Tensor | None, x: Tensor) -> None:
    """Check one [C] tensor: in x's dtype, or in float32 beside a half-precision x."""
    if value is None:
        return
    dtype = value.dtype
    fits = dtype == x.dtype or (
        dtype == torch.float32 and x.dtype in (torch.bfloat16, torch.float16)
    )
    if not fits or value.shape != x.shape[1:2]:
        raise ValueError(
            f"{name}: expected shape [{x.shape[1]}] in the dtype of x, {x.dtype}, or in float32 "
            f"beside half precision, got {dtype} {list(value.shape)}"
        )
    require_device(name, value, x)


def _check_mask(mask: Tensor, x: Tensor) -> None:
    """Check the mask: empty, or on the CPU what the forward made with a residual and ReLU."""
    require_device("mask", mask, x)
    shape = mask_shape(x, x, relu=True)
    if mask.dtype != torch.uint8 or (mask.numel() and mask.shape != shape):
        raise ValueError(
            f"mask: expected torch.uint8 [0] or {list(shape)}, got {mask.dtype} {list(mask.shape)}"
        )
