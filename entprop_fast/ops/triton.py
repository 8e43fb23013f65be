"""Register Triton's kernels for CUDA; what they do not cover, the reference takes.

The kernels are imported at the first call, so that importing the package asks no GPU driver.
"""

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from entprop_fast.ops.library import CHECKS, LAUNCHERS, LIBRARY, NAMESPACE
from entprop_fast.torch_internals import OpOverload


@cache
def kernel_of(name: str) -> ModuleType:
    """Import the module of a kernel."""
    return import_module(f"entprop_fast.kernels.{name}")


def register(names: Iterable[str]) -> None:
    """Register these ops for CUDA; once."""
    for name in names:
        # A backward's own caller is autograd, which hands it what the forward checked and made.
        launcher = launcher_of(name)
        LIBRARY.impl(name, launcher, "CUDA")
        trusting = launcher_of(name, checks=False) if name.endswith("_backward") else launcher
        LAUNCHERS[_overload(name), "cuda"] = trusting


def launcher_of(name: str, checks: bool = True) -> Callable[..., Any]:
    """Return what launches the kernel of an op, or calls its reference for what it leaves."""
    reference = _overload(f"{name}_reference")
    check, unpack = CHECKS[name]

    def launch(*given: Any) -> Any:
        arguments = given if unpack is None else unpack(*given)
        if checks:
            check(*arguments)
        kernel = kernel_of(name)
        if kernel.covers(*arguments):
            return getattr(kernel, name)(*arguments)
        return reference(*given)

    return launch


def _overload(name: str) -> OpOverload:
    overload: OpOverload = getattr(getattr(torch.ops, NAMESPACE), name).default
    return overload
