"""Hold what a step is timed at: a network, its batch, and EntProp's k and n."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from entprop_fast import models
from entprop_fast.lab.training.deploy import stem_for
from entprop_fast.models import resnet

BRANCH = 0.1


@dataclass(frozen=True)
class Setting:
    """Hold one group of the table's rows; `piece` tells two groups of the same step apart."""

    arch: str
    batch: int
    pixels: int
    classes: int
    k: float
    n: int
    device: str
    piece: str = ""

    def __str__(self) -> str:
        size = f"{self.batch}x3x{self.pixels}x{self.pixels}"
        piece = f"-{self.piece}" if self.piece else ""
        return f"{self.arch}-{size}-{self.device}-k{self.k}-n{self.n}{piece}"

    @property
    def amp(self) -> Literal["bf16"] | None:
        """Autocast of every contender: PyTorch's default on the CPU, bf16 on CUDA."""
        return "bf16" if self.device == "cuda" else None

    def data(self) -> tuple[Tensor, Tensor]:
        """Make a batch of random images and labels, contiguous."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, 3, self.pixels, self.pixels)
        images = torch.rand(shape, generator=generator)
        labels = torch.randint(self.classes, (self.batch,), generator=generator)
        return images.to(self.device), labels.to(self.device)

    def network(self) -> nn.Module:
        """Make the plain network, the same weights for every contender."""
        torch.manual_seed(0)
        stem = stem_for(self.arch, self.pixels)
        network = models.create(self.arch, num_classes=self.classes, stem=stem)
        for module in network.modules():
            if isinstance(module, resnet.Bottleneck):
                # With branches as strong as the shortcuts the losses of a second step differ by a
                # tenth between PyTorch's own two layouts, and there is nothing to compare with.
                nn.init.constant_(module.bn3.weight, BRANCH)
        return network.to(self.device).train()

    def generator(self) -> torch.Generator:
        """Make the same draws for every contender."""
        return torch.Generator(self.device).manual_seed(1)
