"""Put networks that were trained on normalised images behind an input in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from entprop_fast.name_errors import unknown

Constants = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of each channel

# What a setting can name; None: images stay in [0, 1].
NORMALIZATIONS: dict[str, Constants | None] = {
    "none": None,
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class Normalized(nn.Module):
    """``network((images - mean) / std)``: perturbations and corruptions stay in image units.

    Args:
        network: takes normalised images.
        mean: of each channel, in image units.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean", mean), ("std", std)):
            # No part of a checkpoint: the constants are the setting's.
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return what the network makes of images ``[N, C, H, W]`` in [0, 1]."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def with_normalization(network: nn.Module, name: str, in_channels: int) -> nn.Module:
    """Put a network behind the named normalisation.

    Args:
        network: of `in_channels`.
        name: one of ``NORMALIZATIONS``.
        in_channels: of the images.

    Raises:
        ValueError: there is none of this name, or it is of other channels.
    """
    if name not in NORMALIZATIONS:
        raise unknown("normalize", name, NORMALIZATIONS)
    constants = NORMALIZATIONS[name]
    if constants is None:
        return network
    mean, std = constants
    if len(mean) != in_channels:
        raise ValueError(
            f"normalize {name!r} has {len(mean)} channels, the images {in_channels}: none"
        )
    return Normalized(network, mean, std)


def core(model: nn.Module) -> nn.Module:
    """Return the network itself, whose keys are those of its published weights."""
    return model.network if isinstance(model, Normalized) else model
