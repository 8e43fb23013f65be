"""Provide what every launcher needs from the device, without asking the driver at import."""

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from entprop_fast.torch_internals import TRIED_TRITONS, launch_compiled

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Sixteen warps then share a multiprocessor's 65536 registers. Left alone, the compiler takes up to
# 155 for a loop that gains nothing by them; AMD's knows no such option.
MAX_REGISTERS = 128
OPTIONS = {"maxnreg": MAX_REGISTERS} if torch.version.hip is None else {}

# How a compiled kernel takes its arguments is Triton's own affair: only where it was tried.
_REMEMBERS = triton.__version__.startswith(TRIED_TRITONS)
_COMPILED: dict[tuple[Any, ...], Any] = {}


class Card(NamedTuple):
    """Hold what a plan asks of a device; an H100's count stands for whatever has none."""

    multiprocessors: int = 132
    overlaps: bool = False  # a launch may begin before the one in front of it has ended


@cache
def card_of(device: torch.device) -> Card:
    """Ask the driver about a device, at the first launch on it."""
    if device.type != "cuda":
        return Card()
    found = torch.cuda.get_device_properties(device)
    return Card(found.multi_processor_count, torch.version.hip is None and found.major >= 9)


def on_device_of(tensor: Tensor) -> torch.cuda.device_of:
    """Return the context in which Triton launches on the tensor's device; none for the CPU."""
    return torch.cuda.device_of(tensor)


def launch(
    kernel: Any,
    grid: tuple[int, int],
    tensors: tuple[Tensor | None, ...],
    numbers: tuple[float, ...],
    specialized: tuple[int, ...],
    constants: dict[str, int],
    num_warps: int,
    overlaps: bool = False,
) -> None:
    """Launch `kernel[grid](*tensors, *numbers, **constants)`, remembering what was compiled.

    Triton finds a compiled kernel by looking at each of its arguments, some thirty here, at every
    launch: 10 us of the host's time, against 4 with a key of what decides alone.

    Args:
        kernel: a jit function whose arguments are these, in this order.
        grid: as Triton takes it.
        tensors: on one device, the first of them not None.
        numbers: floats, and integers of 32 bits.
        specialized: those of the integers that are not among the kernel's `do_not_specialize`.
        constants: the kernel's constexprs, in its order.
        num_warps: of each program.
        overlaps: whether it may begin before the launch in front of it has ended, for which the
            kernel itself waits (programmatic dependent launch).
    """
    addresses, dtypes = 0, []
    for tensor in tensors:
        if tensor is None:
            dtypes.append(None)
        else:
            addresses |= tensor.data_ptr()
            dtypes.append(tensor.dtype)
    # Not the kernel: Triton hashes its source.
    key = (
        kernel.fn, tensors[0].device, *dtypes, *specialized, *constants.values(), num_warps,
        overlaps,
    )  # fmt: skip
    aligned = addresses % 16 == 0  # as almost always; the others Triton tells apart one by one
    compiled = _COMPILED.get(key) if aligned else None
    if compiled is not None:
        launch_compiled(compiled, grid, (*tensors, *numbers, *constants.values()))
        return
    options = {"num_warps": num_warps, **OPTIONS, **({"launch_pdl": True} if overlaps else {})}
    compiled = kernel[grid](*tensors, *numbers, **constants, **options)
    if aligned and _REMEMBERS and compiled is not None:  # None from Triton's interpreter
        _COMPILED[key] = compiled
