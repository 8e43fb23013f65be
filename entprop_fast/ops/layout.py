"""Describe memory layouts as the kernels see them; csrc/cpu/tensor.h says the same in C++."""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Return whether `x` [N, C, H, W] has exactly the strides of `torch.channels_last`.

    Stricter than `x.is_contiguous(memory_format=torch.channels_last)`, which also accepts a
    contiguous tensor with one channel or one pixel.
    """
    if x.dim() != 4:
        return False
    _, channels, height, width = x.shape
    return x.stride() == (height * width * channels, 1, width * channels, channels)


def memory_format(x: Tensor) -> torch.memory_format:
    """Return the format of an op's fresh output for an input `x`: channels_last or contiguous."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def same_layout(value: Tensor, like: Tensor) -> Tensor:
    """Return `value` with the strides of `torch.empty_like(like)`; copied where they differ."""
    out = torch.empty_like(like, dtype=value.dtype)
    return value if value.stride() == out.stride() else out.copy_(value)
