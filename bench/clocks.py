"""Ask the driver for the GPU's clocks, which differ between two machines of the same name."""

import subprocess

import torch

UNKNOWN = "clocks unknown"
ASKED = "clocks.sm,clocks.mem,power.limit"
PATIENCE = 10  # seconds


def read() -> str:
    """Return the clocks of the first CUDA device at this moment, and its power limit.

    `UNKNOWN` where the driver's ``nvidia-smi`` is not there, fails or says nothing of them: on
    ROCm, in some containers, and for a slice of a GPU.
    """
    try:
        asked = subprocess.run(
            [
                "nvidia-smi",
                f"--id=GPU-{torch.cuda.get_device_properties(0).uuid}",
                f"--query-gpu={ASKED}",
                "--format=csv,noheader,nounits",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.SubprocessError, AssertionError, RuntimeError, AttributeError):
        return UNKNOWN
    return said(asked.stdout)


def said(line: str) -> str:
    """Write what ``nvidia-smi`` answers in words; what it cannot tell is left out."""
    values = [value.strip() for value in line.strip().split(",")]
    names = ("SM {} MHz", "memory {} MHz", "power limit {:.0f} W")
    known = [
        name.format(float(value) if "limit" in name else value)
        for name, value in zip(names, values, strict=False)
        if value.replace(".", "", 1).isdecimal()
    ]
    return ", ".join(known) if known else UNKNOWN
