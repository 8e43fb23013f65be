"""Translate between `Half` and the registered schemas, which have no structs; nothing else does."""

from typing import Any, TypeAlias

from torch import Tensor

from entprop_fast.norm_half import Half

SCHEMA = (
    "dual_batch_norm(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, "
    "Tensor(a!)? running_mean, Tensor(b!)? running_var, Tensor? aux_weight, Tensor? aux_bias, "
    "Tensor(c!)? aux_running_mean, Tensor(d!)? aux_running_var, int num_main, bool training, "
    "bool aux_training, float momentum, float aux_momentum, float eps, float aux_eps, bool relu, "
    "Tensor? addend=None, Tensor(e!)? num_batches=None, Tensor(f!)? aux_num_batches=None) "
    "-> (Tensor y, Tensor mean, Tensor rstd, Tensor mask, Tensor total)"
)
BACKWARD_SCHEMA = (
    "dual_batch_norm_backward(Tensor grad, Tensor x, Tensor? residual, Tensor? weight, "
    "Tensor? bias, Tensor? aux_weight, Tensor? aux_bias, Tensor mean, Tensor rstd, Tensor mask, "
    "int num_main, bool training, bool aux_training, bool relu, bool[4] wanted, "
    "Tensor? again=None, Tensor? dtotal=None) "
    "-> (Tensor dx, Tensor dresidual, Tensor dweight, Tensor dbias)"
)

# x, residual, main, aux, num_main, relu, addend
Arguments: TypeAlias = tuple[Tensor, Tensor | None, Half, Half, int, bool, Tensor | None]
# grad, x, residual, main, aux, mean, rstd, mask, num_main, relu, wanted, again, dtotal; no running
# statistics
BackwardArguments: TypeAlias = tuple[
    Tensor,
    Tensor,
    Tensor | None,
    Half,
    Half,
    Tensor,
    Tensor,
    Tensor,
    int,
    bool,
    list[bool],
    Tensor | None,
    Tensor | None,
]


def flat(
    x: Any,
    residual: Any,
    main: Half,
    aux: Half,
    num_main: Any,
    relu: Any,
    addend: Tensor | None = None,
) -> tuple[Any, ...]:
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
        addend,
        main.num_batches,
        aux.num_batches,
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
    addend: Tensor | None = None,
    num_batches: Tensor | None = None,
    aux_num_batches: Tensor | None = None,
) -> Arguments:
    """Return the arguments of `SCHEMA` as structs."""
    main = Half(weight, bias, running_mean, running_var, training, momentum, eps, num_batches)
    aux = Half(
        aux_weight,
        aux_bias,
        aux_running_mean,
        aux_running_var,
        aux_training,
        aux_momentum,
        aux_eps,
        aux_num_batches,
    )
    return x, residual, main, aux, num_main, relu, addend


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
    again: Tensor | None = None,
    dtotal: Tensor | None = None,
) -> BackwardArguments:
    """Return the arguments of `BACKWARD_SCHEMA` as structs."""
    main = Half(weight, bias, training=training)
    aux = Half(aux_weight, aux_bias, training=aux_training)
    return grad, x, residual, main, aux, mean, rstd, mask, num_main, relu, wanted, again, dtotal
