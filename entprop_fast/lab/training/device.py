"""Choose where a run computes, and in which precision: what the machine decides."""

from __future__ import annotations

import os

import torch

MOST_OF_A_CORE = 4  # threads: many more wait for each other, and a run stands still
MOST_THREADS = 1024  # OpenMP ends the process where it cannot start them
CHOICES = "auto, cpu, cuda, cuda:N, mps, xpu or xpu:N"


def resolve_device(name: str) -> torch.device:
    """Find the device of ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``, ``xpu`` or ``xpu:N``.

    Raises:
        ValueError: torch does not know it, or this machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be {CHOICES}, got {name!r}") from None
    counts = {
        "cpu": lambda: 1,
        "cuda": torch.cuda.device_count,
        "mps": lambda: int(torch.backends.mps.is_available()),
        "xpu": torch.xpu.device_count,
    }
    if device.type not in counts or (device.type == "cpu" and device.index is not None):
        raise ValueError(f"device must be {CHOICES}, got {name!r}")
    count = counts[device.type]()
    if (device.index or 0) >= count:
        raise ValueError(f"device {name!r}: torch sees {count} {device.type.upper()} devices")
    return device


def set_threads(threads: int | None) -> None:
    """Set how many CPU threads torch uses from here on; None: as many as it chose.

    Raises:
        ValueError: more than a process can be given.
    """
    if threads is None:
        return
    cores = os.cpu_count() or 1
    most = min(MOST_THREADS, MOST_OF_A_CORE * cores)
    if threads > most:
        raise ValueError(f"threads must be at most {most} on {cores} cores, got {threads}")
    torch.set_num_threads(threads)


def resolve_amp(amp: str, device: torch.device) -> str | None:
    """Return the method's `amp` for the setting: ``auto`` is bf16 on CUDA, none elsewhere."""
    if amp == "auto":
        return "bf16" if device.type == "cuda" else None
    return None if amp == "none" else amp
