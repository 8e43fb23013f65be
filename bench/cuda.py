"""Refuse to measure without a GPU."""

import torch


def require_cuda() -> None:
    """End the program, saying why, where there is no CUDA device."""
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: torch.cuda.is_available() is False")
