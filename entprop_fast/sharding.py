"""Recognise what torch has split over processes, without the second that importing its FSDP takes.

Whoever has split something has imported it.
"""

import sys
from typing import Any

from torch import nn


def is_sharded(module: nn.Module) -> bool:
    """Return whether `fully_shard` was called on this very module."""
    return _is_a(module, "torch.distributed.fsdp", "FSDPModule")


def is_flat_sharded(module: nn.Module) -> bool:
    """Return whether this very module is a `FullyShardedDataParallel`, torch's older kind."""
    return _is_a(module, "torch.distributed.fsdp", "FullyShardedDataParallel")


def is_split(tensor: object) -> bool:
    """Return whether a tensor is one process's part of a larger one."""
    return _is_a(tensor, "torch.distributed.tensor", "DTensor")


def is_partitioned(optimizer: object) -> bool:
    """Return whether an optimizer keeps one process's part of the states: ZeRO-1."""
    return _is_a(optimizer, "torch.distributed.optim", "ZeroRedundancyOptimizer")


def refuse_sharded(model: nn.Module, call: str, instead: str) -> None:
    """Refuse what would change modules whose parameters are split.

    Raises:
        ValueError: `model` has some.
    """
    for name, module in model.named_modules():
        if is_sharded(module) or is_flat_sharded(module):
            place = f"model.{name}" if name else "model"
            raise ValueError(f"{call}: {place} is split over processes: {instead}")


def _is_a(value: Any, module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))
