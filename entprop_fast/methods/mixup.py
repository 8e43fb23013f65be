"""Plain, MixUp and CutMix training: one pass, one norm."""

import math
from typing import Unpack

import torch
from torch import Tensor, nn

from entprop_fast.methods.base import CommonOptions, Method, StepResult
from entprop_fast.methods.options import check_number
from entprop_fast.methods.targets import Targets, cutmix, mixup


class Vanilla(Method):
    """Plain training: the loss of the images as they are (cost 1).

    On a model with dual norms the auxiliary halves take no part. Arguments are those of `Method`.
    """

    name = "vanilla"

    def cost(self, batch: int) -> float:
        """One pass, whatever the batch."""
        return 1.0

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Targets]:
        return images.detach(), Targets.unmixed(labels)

    def _passes(self, images: Tensor, labels: Tensor) -> StepResult:
        mixed, targets = self._mixed(images, labels)
        logits = self._forward(mixed, labels)
        losses, entropy, _ = self._evaluate(logits, targets)
        loss = losses.mean()
        loss.backward()
        return StepResult(
            loss=loss.detach(),
            aux_loss=torch.zeros_like(loss),
            correct=(logits.detach().argmax(dim=1) == labels).sum(),
            entropy_selected=torch.full_like(loss, math.nan),
            entropy_unselected=entropy.mean(),
        )


class MixUp(Vanilla):
    """MixUp training: the two-label loss of mixed images (cost 1).

    Args:
        model: see `Method`.
        optimizer: see `Method`.
        mixup: lam ~ Beta(mixup, mixup), one for each batch; 0 mixes nothing.
        **options: see `Method`.
    """

    name = "mixup"

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        mixup: float = 1.0,
        **options: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, optimizer, **options)
        self.mixup = check_number("mixup", mixup, low=0)

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Targets]:
        return mixup(images, labels, self.mixup, self.generator)


class CutMix(Vanilla):
    """CutMix training: the two-label loss of images with a box of another pasted in (cost 1).

    Args:
        model: see `Method`.
        optimizer: see `Method`.
        cutmix: lam ~ Beta(cutmix, cutmix), one for each batch; 0 mixes nothing.
        **options: see `Method`.
    """

    name = "cutmix"

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        cutmix: float = 1.0,
        **options: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, optimizer, **options)
        self.cutmix = check_number("cutmix", cutmix, low=0)

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Targets]:
        return cutmix(images, labels, self.cutmix, self.generator)
