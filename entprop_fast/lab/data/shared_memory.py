"""Send tensors to another process in memory that no ``/dev/shm`` limits.

torch's own way puts them there, where a container has 64 MB (Docker's default) or less: a batch
that finds no room kills its process, or is lost while the other one waits for it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from typing import Any

import torch
from torch import Tensor

_ALIGNED = 64  # bytes


@dataclass(frozen=True)
class SharedTensors:
    """Arrives in the other process, unpickled there, as the tuple of the tensors."""

    handle: Any  # of a file without a name, in memory
    size: int
    described: tuple[tuple[torch.dtype, tuple[int, ...], int], ...]  # dtype, shape, first byte

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (self.handle, self.size, self.described)


def share(tensors: Sequence[Tensor]) -> SharedTensors | tuple[Tensor, ...]:
    """Copy tensors to where another process can map them; as they are, where Linux is not.

    Raises:
        OSError: there is no memory, or no file can be opened.
    """
    if not hasattr(os, "memfd_create"):
        return tuple(tensors)
    described, size = [], 0
    for one in tensors:
        described.append((one.dtype, tuple(one.shape), size))
        size += -(-one.nbytes // _ALIGNED) * _ALIGNED
    size = max(size, _ALIGNED)
    file = os.memfd_create("entprop_fast batch")
    try:
        os.ftruncate(file, size)
        shared = SharedTensors(DupFd(file), size, tuple(described))
        for one, (_, _, first) in zip(tensors, described, strict=True):
            _write(file, one, first)
    finally:
        os.close(file)
    return shared


def _write(file: int, tensor: Tensor, first: int) -> None:
    """Write without a mapping: its page faults would take longer than the copy."""
    left: memoryview = tensor.contiguous().view(-1).view(torch.uint8).numpy().data
    while left:
        written = os.pwrite(file, left, first)
        left, first = left[written:], first + written


def _open(handle: Any, size: int, described: Any) -> tuple[Tensor, ...]:
    file = handle.detach()
    try:
        return _mapped(file, size, described)
    finally:
        os.close(file)


def _mapped(file: int, size: int, described: Any) -> tuple[Tensor, ...]:
    memory = mmap.mmap(file, size)  # lives as long as the tensors
    found = []
    for dtype, shape, first in described:
        count = torch.Size(shape).numel()
        flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=first) if count else None
        found.append(torch.empty(shape, dtype=dtype) if flat is None else flat.view(shape))
    return tuple(found)
