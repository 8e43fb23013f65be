"""Triton's kernels as the CUDA backend of their ops; what they do not cover, the reference takes.

The kernels are imported at the first call, so that importing the package asks no GPU driver.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from entprop_fast.ops.library import CHECKS, LAUNCHERS, LIBRARY, NAMESPACE, checked


@cache
def _kernel(name: str) -> ModuleType:
    return import_module(f"entprop_fast.kernels.{name}")


def _norm_inputs(x: Tensor, residual: Tensor | None, *rest: Any) -> tuple[Any, ...]:
    return x, residual, *rest[:8]


def _norm_backward_inputs(
    grad: Tensor, x: Tensor, residual: Tensor | None, *rest: Any
) -> tuple[Any, ...]:
    return grad, x, residual, *rest[:6]


def _loss_inputs(*arguments: Any) -> tuple[Any, ...]:
    return arguments[:4]


def _all_inputs(*arguments: Any) -> tuple[Any, ...]:
    return arguments


# Op to the arguments that its kernel's `covers` looks at.
_LOOKS_AT: dict[str, Callable[..., tuple[Any, ...]]] = {
    "dual_batch_norm": _norm_inputs,
    "dual_batch_norm_backward": _norm_backward_inputs,
    "loss_and_entropy": _loss_inputs,
    "select_topk": _all_inputs,
}


def register() -> None:
    """Register the four ops for CUDA; once."""
    for name, looks_at in _LOOKS_AT.items():
        launcher = _launcher(name, looks_at)
        safe = checked(CHECKS[name], launcher)
        LIBRARY.impl(name, safe, "CUDA")
        # A backward's own caller is autograd, which hands it what the forward checked and made.
        LAUNCHERS[_overload(name), "cuda"] = launcher if name.endswith("_backward") else safe


def _overload(name: str) -> OpOverload:
    overload: OpOverload = getattr(getattr(torch.ops, NAMESPACE), name).default
    return overload


def _launcher(name: str, looks_at: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    reference = _overload(f"{name}_reference")

    def launch(*arguments: Any) -> Any:
        kernel = _kernel(name)
        if kernel.covers(*looks_at(*arguments)):
            return getattr(kernel, name)(*arguments)
        return reference(*arguments)

    return launch
