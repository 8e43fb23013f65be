"""Filter images by a random kernel each (PRIME)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.ops.prime_draws import pair_normals


def random_kernels(keys: Tensor, scale: Tensor, size: int) -> Tensor:
    """Draw kernels, float32 [S, size, size]: `scale` [S] times normal numbers, plus a one.

    The one stands at (ceil(size / 2), ceil(size / 2)) as in the authors' code, which is one beyond
    the middle.
    """
    kernels = pair_normals(keys, size * size).view(len(keys), size, size) * scale[:, None, None]
    delta = kernels.new_zeros(size, size)
    delta[(size + 1) // 2, (size + 1) // 2] = 1
    return kernels + delta


def filter_images(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate the channels of each image with its kernel, zero outside, clamped to [0, 1]."""
    size = kernels.shape[-1]
    padded = F.pad(images, [size // 2] * 4)
    height, width = images.shape[2:]
    result = torch.zeros_like(images)
    # Tap by tap rather than as a convolution of S groups, which is slow where S is large.
    for row in range(size):
        for column in range(size):
            window = padded[:, :, row : row + height, column : column + width]
            result.addcmul_(window, kernels[:, row, column, None, None, None])
    return result.clamp_(0, 1)
