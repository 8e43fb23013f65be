"""Memory layouts as the kernels see them. csrc/cpu/tensor.h holds the same rules in C++."""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether `x` [N, C, H, W] has exactly the strides of `torch.channels_last`.

    Stricter than `x.is_contiguous(memory_format=torch.channels_last)`, which also accepts a
    contiguous tensor with one channel or one pixel.
    """
    if x.dim() != 4:
        return False
    _, channels, height, width = x.shape
    return x.stride() == (height * width * channels, 1, width * channels, channels)


def memory_format(x: Tensor) -> torch.memory_format:
    """The format of an op's fresh output for an input `x`: channels_last or contiguous."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def same_layout(value: Tensor, like: Tensor) -> Tensor:
    """`value` with the strides that `torch.empty_like(like)` has; a copy only where they differ."""
    out = torch.empty_like(like, dtype=value.dtype)
    return value if value.stride() == out.stride() else out.copy_(value)
