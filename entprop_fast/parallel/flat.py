"""Exchange many tensors in one collective."""

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from entprop_fast.torch_internals import copy_each


def in_one(tensors: Iterable[Tensor], collective: Callable[[Tensor], object]) -> None:
    """Run an in-place `collective` once for all tensors of a dtype and device, flat in a row."""
    alike: defaultdict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        alike[tensor.dtype, tensor.device].append(tensor.detach())
    for some in alike.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in some])
        collective(flat)
        parts = flat.split([tensor.numel() for tensor in some])
        copy_each(some, [p.view(t.shape) for p, t in zip(parts, some, strict=True)])
