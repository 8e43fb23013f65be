"""Which backend serves which device.

`ENTPROP_BACKEND=reference` sends every op to plain PyTorch; `auto` (the default) uses the kernels
that were built and falls back to the reference wherever they cover nothing.
"""

import importlib
import importlib.util
import os
import warnings

import torch
from torch import Tensor

CHOICES = ("auto", "reference")


def _choice() -> str:
    choice = os.environ.get("ENTPROP_BACKEND", "auto")
    if choice not in CHOICES:
        raise ValueError(f"ENTPROP_BACKEND={choice!r}: expected one of {', '.join(CHOICES)}")
    return choice


BACKEND = _choice()
# Device types whose kernels are registered; the others run the reference.
KERNEL_DEVICES: set[str] = set()


def load_kernels() -> None:
    """Register the kernels that are there: the C++ ones for the CPU, the Triton ones for CUDA."""
    if BACKEND == "reference":
        return
    if _load_extension():
        KERNEL_DEVICES.add("cpu")
    # The version torch was built with: asking for a device would start the driver at import.
    if torch.version.cuda is not None and importlib.util.find_spec("triton") is not None:
        importlib.import_module("entprop_fast.ops.triton_backend").register()
        KERNEL_DEVICES.add("cuda")


def _load_extension() -> bool:
    """Import `entprop_fast._C`, whose static initialisers register its kernels, if it was built."""
    try:
        importlib.import_module("entprop_fast._C")
    except ModuleNotFoundError as error:
        if error.name != "entprop_fast._C":
            raise
        return False
    except ImportError as error:
        warnings.warn(
            f"entprop_fast._C was built but does not load ({error}); the ops run through the "
            "reference. Reinstall with `pip install --no-build-isolation`.",
            stacklevel=4,
        )
        return False
    return True


def uses_kernels(x: Tensor) -> bool:
    """Whether an op on `x` goes to the kernels rather than to differentiable plain PyTorch.

    Forward-mode AD and `torch.func` need PyTorch's own derivative rules, so they take the latter.
    """
    if x.device.type not in KERNEL_DEVICES or x.numel() == 0:
        return False
    if torch.compiler.is_compiling():
        return True
    return not (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )
