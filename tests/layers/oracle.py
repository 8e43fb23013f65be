"""The norms as formulas in float64: what the tests of the layers compare with."""

from typing import NamedTuple

import torch
from torch import Tensor


class Normalised(NamedTuple):
    y: Tensor  # [N, C, H, W] float64
    mean: Tensor  # [C]
    variance: Tensor  # [C], unbiased, as running statistics are


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Normalised:
    """Training-mode batch norm of ``[N, C, H, W]`` by its definition."""
    x = x.double()
    count = x.numel() // x.shape[1]
    mean = x.sum((0, 2, 3), keepdim=True) / count
    variance = (x - mean).square().sum((0, 2, 3), keepdim=True) / count
    y = (x - mean) / (variance + eps).sqrt()
    y = y * weight.double()[:, None, None] + bias.double()[:, None, None]
    unbiased = variance * count / max(count - 1, 1)
    return Normalised(y, mean.flatten().detach(), unbiased.flatten().detach())


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm over the last dimension by its definition."""
    x = x.double()
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    variance = (x - mean).square().sum(-1, keepdim=True) / x.shape[-1]
    return (x - mean) / (variance + eps).sqrt() * weight.double() + bias.double()


def randomize(module: torch.nn.Module) -> None:
    """Give every parameter and buffer a value of its own, so that mistaken ones show."""
    for parameter in module.parameters():
        parameter.data.uniform_(0.5, 1.5)
    for name, buffer in module.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.fill_(3)
        elif buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    """Clones of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def moved(module: torch.nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Names of the entries that differ from `before`, a snapshot."""
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


class OwnBatchNorm1d(torch.nn.BatchNorm1d):
    """A batch norm that is left without an auxiliary half: nobody knows what its forward does."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


class Sub(torch.nn.BatchNorm2d):
    """A subclass without a forward of its own, which is converted as its base is."""
