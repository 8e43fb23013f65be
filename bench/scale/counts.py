"""Count what the processes of a step exchange, from the network itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from entprop_fast import convert_dual_norm, models
from entprop_fast.layers.dual_norm import DualNorm

FLOAT = 4  # bytes: parameters, gradients and statistics are float32, under autocast too


@dataclass(frozen=True)
class Counts:
    """Hold what one network's step moves.

    Attributes:
        gradients: bytes of all parameters' gradients, both halves' norms included.
        buffers: bytes of running statistics and counters, both halves'.
        channels: of each dual norm.
    """

    gradients: int
    buffers: int
    channels: tuple[int, ...]


def forward_bytes(channels: int) -> int:
    """Return what a process gives in a norm's forward: count, mean and M2 of both halves."""
    return 2 * (2 * channels + 1) * FLOAT


def backward_bytes(channels: int) -> int:
    """Return what is summed up in a norm's backward: two sums a channel, of both halves."""
    return 2 * 2 * channels * FLOAT


def counts_of(model: nn.Module) -> Counts:
    """Count a converted network."""
    return Counts(
        gradients=sum(one.numel() * FLOAT for one in model.parameters()),
        buffers=sum(one.numel() * one.element_size() for one in model.buffers()),
        channels=tuple(_channels(one) for one in model.modules() if isinstance(one, DualNorm)),
    )


def _channels(norm: Any) -> int:
    return int(norm.num_features)


def counted(arch: str, *, classes: int) -> Counts:
    """Count a network of ours by name."""
    return counts_of(convert_dual_norm(models.create(arch, num_classes=classes, in_channels=3)))
