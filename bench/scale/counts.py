"""Count what the processes of a step exchange, from the network itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast import convert_dual_norm, models
from entprop_fast.layers.dual_norm import DualNorm

FLOAT = 4  # bytes: parameters, gradients and statistics are float32, under autocast too
BFLOAT = 2
TRAFFIC = (
    3 + 5
)  # tensor passes of a norm with ReLU, forward and backward; a residual's are left out


@dataclass(frozen=True)
class Counts:
    """Hold what one network's step moves.

    Attributes:
        gradients: bytes of all parameters' gradients, both halves' norms included.
        buffers: bytes of running statistics and counters, both halves'.
        channels: of each dual norm.
        flop: of an image's forward through convolutions and products.
        norm_bytes: of an image through all norms, forward and backward, in bfloat16.
    """

    gradients: int
    buffers: int
    channels: tuple[int, ...]
    flop: float
    norm_bytes: float


def forward_bytes(channels: int) -> int:
    """Return what a process gives in a norm's forward: count, mean and M2 of both halves."""
    return 2 * (2 * channels + 1) * FLOAT


def backward_bytes(channels: int) -> int:
    """Return what is summed up in a norm's backward: two sums a channel, of both halves."""
    return 2 * 2 * channels * FLOAT


def counts_of(model: nn.Module, image: Tensor) -> Counts:
    """Count a converted network; `image` is one of a batch of one."""
    flop, norm_bytes = 0.0, 0.0

    def count(module: nn.Module, given: Any, out: Tensor) -> None:
        nonlocal flop, norm_bytes
        if isinstance(module, DualNorm):
            norm_bytes += TRAFFIC * out.numel() * BFLOAT
        elif isinstance(module, nn.Conv2d):
            kernel = module.weight[0].numel()
            flop += 2 * kernel * out.numel()
        elif isinstance(module, nn.Linear):
            flop += 2 * module.in_features * out.numel()

    hooks = [one.register_forward_hook(count) for one in model.modules()]
    model.eval()
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return Counts(
        gradients=sum(one.numel() * FLOAT for one in model.parameters()),
        buffers=sum(one.numel() * one.element_size() for one in model.buffers()),
        channels=tuple(_channels(one) for one in model.modules() if isinstance(one, DualNorm)),
        flop=flop,
        norm_bytes=norm_bytes,
    )


def _channels(norm: Any) -> int:
    return int(norm.num_features)


def counted(arch: str, *, classes: int, pixels: int) -> Counts:
    """Count a network of ours by name."""
    model = convert_dual_norm(models.create(arch, num_classes=classes, in_channels=3))
    return counts_of(model, torch.zeros(1, 3, pixels, pixels))
