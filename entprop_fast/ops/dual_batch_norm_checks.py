"""What dual_batch_norm and its backward require of their arguments, kernels and reference alike."""

import torch
from torch import Tensor

from entprop_fast.ops.dual_batch_norm_reference import accumulate_dtype, mask_shape
from entprop_fast.ops.tensor_checks import require, require_apart, require_device, require_floating

NAMES = ("weight", "bias", "running_mean", "running_var")


def check(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    aux_weight: Tensor | None,
    aux_bias: Tensor | None,
    aux_running_mean: Tensor | None,
    aux_running_var: Tensor | None,
    num_main: int,
    training: bool,
    aux_training: bool,
    momentum: float,
    aux_momentum: float,
    eps: float,
    aux_eps: float,
    relu: bool,
) -> None:
    """Refuse arguments of the op that do not fit."""
    _check_images(x, residual, num_main)
    main = (weight, bias, running_mean, running_var)
    aux = (aux_weight, aux_bias, aux_running_mean, aux_running_var)
    named = {
        prefix: [(prefix + name, p) for name, p in zip(NAMES, parameters, strict=True)]
        for prefix, parameters in (("", main), ("aux_", aux))
    }
    for name, parameter in (*named[""], *named["aux_"]):
        _check_parameter(name, parameter, x)
    moved: list[tuple[str, Tensor | None]] = []
    read = [("x", x), ("residual", residual), *named[""][:2], *named["aux_"][:2]]
    for prefix, count, trains, least in (
        ("", num_main, training, eps),
        ("aux_", x.shape[0] - num_main, aux_training, aux_eps),
    ):
        # An empty batch is the main group's.
        if count == 0 and not (prefix == "" and x.shape[0] == 0):
            continue
        statistics = named[prefix][2:]
        (moved if trains else read).extend(statistics)
        if trains and count * x.shape[2:].numel() == 1:
            size = torch.Size((count, *x.shape[1:]))  # in the words of F.batch_norm
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {size}"
            )
        if not trains and any(statistic is None for _, statistic in statistics):
            raise ValueError(
                f"{prefix}running_mean, {prefix}running_var: needed with {prefix}training=False"
            )
        if least < 0 or (trains and least == 0):
            sign = "above 0 in training" if trains else "0 or more"
            raise ValueError(f"{prefix}eps={least}: expected {sign}")
    require_apart(moved, read)


def check_backward(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    aux_weight: Tensor | None,
    aux_bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    mask: Tensor,
    num_main: int,
    training: bool,
    aux_training: bool,
    relu: bool,
    wanted: list[bool],
) -> None:
    """Refuse arguments of the backward that do not fit."""
    _check_images(x, residual, num_main)
    require("grad", grad, x.shape, x.dtype, x)
    for name, parameter in (("weight", weight), ("bias", bias)):
        _check_parameter(name, parameter, x)
    for name, parameter in (("aux_weight", aux_weight), ("aux_bias", aux_bias)):
        _check_parameter(name, parameter, x)
    for name, statistic in (("mean", mean), ("rstd", rstd)):
        require(name, statistic, (2, x.shape[1]), accumulate_dtype(x), x)
    _check_mask(mask, x)
    if len(wanted) != 4:
        raise ValueError(f"wanted={wanted}: expected four of True and False")


def _check_images(x: Tensor, residual: Tensor | None, num_main: int) -> None:
    require_floating("x", x, "[N, C, ...]", x.dim() >= 2)
    if not 0 <= num_main <= x.shape[0]:
        raise ValueError(f"num_main={num_main}: expected 0 to {x.shape[0]}, the rows of x")
    if residual is not None:
        require("residual", residual, x.shape, x.dtype, x)


def _check_parameter(name: str, value: Tensor | None, x: Tensor) -> None:
    """A parameter or running statistic: of x's dtype, or float32 beside a half-precision x."""
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
    """Empty, or on the CPU what the forward made with a residual and ReLU."""
    require_device("mask", mask, x)
    shape = mask_shape(x, x, relu=True)
    if mask.dtype != torch.uint8 or (mask.numel() and mask.shape != shape):
        raise ValueError(
            f"mask: expected torch.uint8 [0] or {list(shape)}, got {mask.dtype} {list(mask.shape)}"
        )
