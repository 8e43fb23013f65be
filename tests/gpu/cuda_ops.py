"""The ops as a training step calls them, on whatever device their tensors are."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from entprop_fast.ops import (
    dual_batch_norm,
    entropy_topk,
    gather_perturb,
    loss_and_entropy,
    perturb_,
    select_topk,
)

SHAPE = (8, 16, 6, 6)


def cuda_perturb() -> SimpleNamespace:
    """The CUDA C++ ops below the public functions; skips where none were built."""
    if not torch._C._dispatch_has_kernel_for_dispatch_key("entprop_fast::perturb_", "CUDA"):
        pytest.skip("entprop_fast._C was built without nvcc")
    ops = torch.ops.entprop_fast
    return SimpleNamespace(
        gather_perturb=ops.gather_perturb.default,
        gather_perturb_out=ops.gather_perturb.out,
        perturb_=ops.perturb_.default,
    )


def _labels(x: Tensor) -> Tensor:
    return torch.arange(len(x), device=x.device) % x.shape[1]


def limits(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha, eps, lo, hi, the same for every channel."""
    alpha, eps, lo, hi = (x.new_full(x.shape[1:2], value) for value in (0.1, 0.15, -1.0, 1.0))
    return alpha, eps, lo, hi


def _rows(x: Tensor) -> Tensor:
    return torch.arange(len(x) - 1, 2, -1, device=x.device)


def _norm(x: Tensor) -> tuple[Tensor, ...]:
    leaf = x.detach().requires_grad_()
    y = dual_batch_norm(leaf, num_main=3, residual=x.sin(), relu=True)
    return y.detach(), torch.autograd.grad(y.square().sum(), leaf)[0]


def _loss(x: Tensor) -> tuple[Tensor, ...]:
    logits = x.mean((2, 3)).requires_grad_()
    result = loss_and_entropy(logits, _labels(x), score="margin")
    (grad,) = torch.autograd.grad(result.loss.sum(), logits)
    return result.loss.detach(), result.entropy, result.score, grad


def _select(x: Tensor) -> tuple[Tensor, ...]:
    return (select_topk(x.flatten(), 9),)


def _gather(x: Tensor) -> tuple[Tensor, ...]:
    return (gather_perturb(x, x.cos() - 0.5, _rows(x), *limits(x)),)


def _perturb(x: Tensor) -> tuple[Tensor, ...]:
    x_adv = x[3:] + 0.05
    return (perturb_(x_adv, x_adv.cos() - 0.5, x, _rows(x), *limits(x)),)


def forward(x: Tensor) -> tuple[Tensor, ...]:
    """Images to loss, entropy, score and selected rows."""
    y = dual_batch_norm(x, num_main=len(x), relu=True)
    return tuple(entropy_topk(y.mean((2, 3)), _labels(x), 3))


def attack(x: Tensor, grad: Tensor, selected: Tensor) -> Tensor:
    """Two steps of the attack on the selected rows."""
    x_adv = gather_perturb(x, grad, selected, *limits(x))
    return perturb_(x_adv, grad[selected], x, selected, *limits(x))


def step(x: Tensor) -> tuple[Tensor, ...]:
    """Images to adversarial images: all the ops, and the backwards of two."""
    leaf = x.detach().requires_grad_()
    loss, entropy, _, selected = forward(leaf)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), entropy, selected, grad, attack(x, grad, selected)


CALLS: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "dual_batch_norm": _norm,
    "loss_and_entropy": _loss,
    "select_topk": _select,
    "gather_perturb": _gather,
    "perturb_": _perturb,
    "step": step,
}
