"""Compute the input's gradient of a dual batch norm over the rows of several processes."""

from typing import Any

import torch
from torch import Tensor

from entprop_fast.norm_half import Half
from entprop_fast.ops import dual_batch_norm_reference as reference
from entprop_fast.ops.dual_batch_norm_checks import check_backward
from entprop_fast.ops.library import define
from entprop_fast.ops.tensor_checks import require

SCHEMA = (
    "dual_batch_norm_dx(Tensor grad, Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, "
    "Tensor? aux_weight, Tensor? aux_bias, Tensor mean, Tensor rstd, Tensor mask, Tensor sums, "
    "Tensor count, int num_main, bool training, bool aux_training, bool relu) -> Tensor dx"
)


def _from_flat(
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
    sums: Tensor,
    count: Tensor,
    num_main: int,
    training: bool,
    aux_training: bool,
    relu: bool,
) -> tuple[Any, ...]:
    main = Half(weight, bias, training=training)
    aux = Half(aux_weight, aux_bias, training=aux_training)
    return grad, x, residual, main, aux, mean, rstd, mask, sums, count, num_main, relu


def _check(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    main: Half,
    aux: Half,
    mean: Tensor,
    rstd: Tensor,
    mask: Tensor,
    sums: Tensor,
    count: Tensor,
    num_main: int,
    relu: bool,
) -> None:
    """Refuse arguments of the op that do not fit."""
    wanted = [True, False, False, False]
    check_backward(grad, x, residual, main, aux, mean, rstd, mask, num_main, relu, wanted)
    require("sums", sums, (2, 2, x.shape[1]), mean.dtype, x)
    require("count", count, (2,), mean.dtype, x)


def _reference(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    main: Half,
    aux: Half,
    mean: Tensor,
    rstd: Tensor,
    mask: Tensor,
    sums: Tensor,
    count: Tensor,
    num_main: int,
    relu: bool,
) -> Tensor:
    means = sums / count.clamp(min=1)[:, None]
    wanted = [True, False, False, False]
    return reference.backward(
        grad, x, residual, main, aux, mean, rstd, mask, num_main, relu, wanted, means=means
    )[0]


def _fake(grad: Tensor, x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


# dx = weight rstd (g - (sums[0] + x' sums[1]) / count) with x' = (x - mean) rstd, where a half
# trains; weight rstd g where it does not. `sums` [2, 2, C] are those of g and of g x', main's
# and the auxiliary half's, over the rows of all processes, `count` [2] their values a channel; all
# else is as for dual_batch_norm_backward.
OP, REFERENCE_OP = define(SCHEMA, _check, _reference, _fake, _from_flat)
