"""Ask a device what others lack: float64, a generator of its own, a number of cores."""

from __future__ import annotations

import os

import torch
from torch import Tensor

# Types of devices on which no float64 tensor can be made.
WITHOUT_FLOAT64 = {"mps"}


def with_float64(device: torch.device) -> torch.device:
    """Return the device, or the CPU in the place of one that has no float64."""
    return device if widest_float(device) == torch.float64 else torch.device("cpu")


def usable_cores() -> int:
    """Count the cores that this process may use; all of them where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on a device that has no float64: Apple's, and some of Intel's."""
    if device.type == "xpu":
        wide: bool = torch.xpu.get_device_properties(device).has_fp64
        return torch.float64 if wide else torch.float32
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def random_state_of(device: torch.device) -> Tensor | None:
    """Return the state of the device's default generator, None where that is the CPU's."""
    if device.type not in ("cuda", "mps", "xpu"):
        return None
    if device.type == "mps":  # one device, and no argument for it
        return torch.mps.get_rng_state()
    state: Tensor = torch.get_device_module(device).get_rng_state(device)
    return state


def set_random_state_of(device: torch.device, state: Tensor) -> None:
    """Put a `random_state_of` back."""
    if device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)
