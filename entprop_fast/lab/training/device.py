"""Choose where a run computes, and in which precision: what the machine decides."""

from __future__ import annotations

import os

import torch

from entprop_fast.lab import job
from entprop_fast.lab.job import Job

MOST_OF_A_CORE = 4  # threads: many more wait for each other, and a run stands still
MOST_THREADS = 1024  # OpenMP ends the process where it cannot start them
CHOICES = "auto, cpu, cuda, cuda:N, mps, xpu or xpu:N"


def resolve_device(name: str) -> torch.device:
    """Find the device of ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``, ``xpu`` or ``xpu:N``.

    Each process of a job has a GPU of its own, by its number on the machine.

    Raises:
        ValueError: torch does not know it, or this machine does not have it.
    """
    if (here := job.of_group()).world > 1:
        return _device_of(here, name)
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


def _device_of(here: Job, name: str) -> torch.device:
    """Return the device of one process of a job; a GPU becomes the process's current one."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise ValueError(
            f"device {name!r} in a job of {here.world} processes: expected auto, cuda or cpu; with "
            "cuda, each process takes the GPU of its LOCAL_RANK"
        )
    count = torch.cuda.device_count()
    index = here.local_rank
    if count == 1 and os.environ.get("SLURM_PROCID"):  # srun may show each task its own GPU alone
        index = 0
    if index >= count:
        fewer = f"start {count} processes a machine, or " if count else ""
        raise ValueError(
            f"device {name!r}: {here.local_world} processes on this machine (LOCAL_RANK="
            f"{here.local_rank}), and torch sees {count} GPUs: {fewer}compute on the CPU with "
            "--device cpu"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


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
