"""Choose which backend serves which device.

`ENTPROP_BACKEND=reference` sends every op to plain PyTorch; `auto` (the default) uses the kernels
that were built and falls back to the reference wherever they cover nothing.
"""

import importlib.util
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor

from entprop_fast import startup
from entprop_fast.build import build_info
from entprop_fast.ops import triton
from entprop_fast.torch_internals import export_records, forward_mode_active, transforms_active

CHOICES = ("auto", "reference")
TRITON_OPS = (
    "dual_batch_norm",
    "dual_batch_norm_backward",
    "dual_batch_norm_moments",
    "dual_batch_norm_merge",
    "dual_batch_norm_dx",
    "loss_and_entropy",
    "select_topk",
    "image_chains",
    "prime_chains",
)
CUDA_OPS = ("gather_perturb", "perturb_")
# On a GPU plain PyTorch computes these: its own convolution is the faster one.
CPU_OPS = ("conv3x3", "conv3x3_backward", "pixmix_rounds")

KERNELS = Path(__file__).parents[1] / "kernels" / "__init__.py"  # in a checkout behind a link
NO_KERNELS = (
    "entprop_fast/kernels is not the folder of the Triton kernels, as in a clone without symbolic "
    "links: `git config core.symlinks true`, delete it, `git checkout entprop_fast/kernels` (or "
    "copy the folder kernels/ there), and install again"
)


def _choice() -> str:
    choice = os.environ.get("ENTPROP_BACKEND", "auto")
    if choice not in CHOICES:
        known = ", ".join(CHOICES)
        startup.refuse(ValueError(f"ENTPROP_BACKEND={choice!r}: expected one of {known}"))
    return choice


BACKEND = _choice()
# Device types whose kernels are registered; the others run the reference.
KERNEL_DEVICES: set[str] = set()


def register_kernels() -> None:
    """Register the kernels that this installation has; to be called once every op is defined."""
    if BACKEND == "reference":
        return
    built = build_info()  # loading the extension registers its C++ and CUDA kernels
    if built.reason is not None and built.damaged:
        warnings.warn(f"every op runs through the reference: {built.reason}", stacklevel=2)
    if "cpu" in built.backends:
        KERNEL_DEVICES.add("cpu")
    if importlib.util.find_spec("triton") is None:
        return
    if KERNELS.exists():
        triton.register(TRITON_OPS)
        KERNEL_DEVICES.add("cuda")
    elif torch.version.cuda is not None or torch.version.hip is not None:
        warnings.warn(f"on a GPU every op runs through the reference: {NO_KERNELS}", stacklevel=2)


def backends() -> dict[str, dict[str, str]]:
    """Return, by device type and op, what serves it: "cpp", "triton", "cuda" or "reference"."""
    built = build_info().backends if BACKEND == "auto" else ()
    cpu = "cpp" if "cpu" in KERNEL_DEVICES else "reference"
    triton = "triton" if "cuda" in KERNEL_DEVICES else "reference"
    cuda = "cuda" if "cuda" in built else "reference"
    return {
        "cpu": dict.fromkeys((*TRITON_OPS, *CUDA_OPS, *CPU_OPS), cpu),
        "cuda": dict.fromkeys(TRITON_OPS, triton) | dict.fromkeys(CUDA_OPS, cuda),
    }


def why_reference(device_type: str) -> str | None:
    """Return which ops run through the reference there, and why; None where each has its kernel."""
    served = backends().get(device_type)
    slow = [] if served is None else [op for op, name in served.items() if name == "reference"]
    if served is not None and not slow:
        return None
    what = ", ".join(slow) if served and len(slow) < len(served) else "every op"
    if BACKEND == "reference":
        why = "ENTPROP_BACKEND=reference"
    elif served is None:
        why = f"there are no kernels for the device {device_type!r}"
    elif device_type == "cuda" and slow[0] in TRITON_OPS:
        why = "Triton is not installed" if KERNELS.exists() else NO_KERNELS
    else:
        why = build_info().reason or f"entprop_fast._C was built without {device_type}"
    return f"{what} in plain PyTorch (the reference backend), slower: {why}"


def uses_kernels(x: Tensor) -> bool:
    """Return whether an op on `x` goes to the kernels rather than to differentiable plain PyTorch.

    Forward-mode AD and `torch.func` need PyTorch's own derivative rules, so they take the latter.
    """
    if x.device.type not in KERNEL_DEVICES or x.numel() == 0:
        return False
    if torch.compiler.is_compiling():
        return True
    return not (transforms_active() or forward_mode_active())


def exporting() -> bool:
    """Return whether PyTorch is recording a program that has to run without this package.

    `torch.export`, `torch.onnx.export` and `torch.jit.trace` get PyTorch's own ops.
    """
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or export_records()
