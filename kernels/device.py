"""What every launcher needs from the device, without asking the driver at import."""

import torch
from torch import Tensor

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def on_device_of(tensor: Tensor) -> torch.cuda.device_of:
    """Context in which Triton launches on the tensor's device; nothing happens for CPU tensors."""
    return torch.cuda.device_of(tensor)
