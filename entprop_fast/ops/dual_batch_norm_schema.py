"""Translate between `Half` and the registered schemas, which have no structs; nothing else does."""

from typing import Any, TypeAlias

from torch import Tensor

from entprop_fast.norm_half import Half

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

# x, residual, main, aux, num_main, relu
Arguments: TypeAlias = tuple[Tensor, Tensor | None, Half, Half, int, bool]
# grad, x, residual, main, aux, mean, rstd, mask, num_main, relu, wanted; no running statistics
BackwardArguments: TypeAlias = tuple[
    Tensor, Tensor, Tensor | None, Half, Half, Tensor, Tensor, Tensor, int, bool, list[bool]
]


def flat(x: Any, residual: Any, main: Half, aux: Half, num_main: Any, relu: Any) -> tuple[Any, ...]:
    """Return the arguments in the order of `SCHEMA`."""
    return (
        x,
        residual,
        main.weight,
        main.bias,
        main.running_mean,
        main.running_var,
        aux.weight,
        aux.bias,
        aux.running_mean,
        aux.running_var,
        num_main,
        main.training,
        aux.training,
        main.momentum,
        aux.momentum,
        main.eps,
        aux.eps,
        relu,
    )


def from_flat(
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
) -> Arguments:
    """Return the arguments of `SCHEMA` as structs."""
    main = Half(weight, bias, running_mean, running_var, training, momentum, eps)
    aux = Half(
        aux_weight, aux_bias, aux_running_mean, aux_running_var, aux_training, aux_momentum, aux_eps
    )
    return x, residual, main, aux, num_main, relu


def from_flat_backward(
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
) -> BackwardArguments:
    """Return the arguments of `BACKWARD_SCHEMA` as structs."""
    main = Half(weight, bias, training=training)
    aux = Half(aux_weight, aux_bias, training=aux_training)
    return grad, x, residual, main, aux, mean, rstd, mask, num_main, relu, wanted
