"""Plain training and MixUp training: one pass, one norm."""

import math
from typing import Unpack

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.methods.base import CommonOptions, Method, StepResult
from entprop_fast.methods.batch import Batch, mixup
from entprop_fast.methods.options import check_number


class Vanilla(Method):
    """Plain training: the loss of the images as they are (cost 1).

    On a model with dual norms the auxiliary halves take no part. Arguments are those of `Method`.
    """

    name = "vanilla"

    def cost(self, batch: int) -> float:
        """One pass, whatever the batch."""
        return 1.0

    def _rows(self, images: Tensor, labels: Tensor) -> Batch:
        return Batch(images.detach(), labels, labels, None)

    def _passes(self, images: Tensor, labels: Tensor) -> StepResult:
        batch = self._rows(images, labels)
        logits = self._forward(batch.images, labels)
        loss = self._losses(logits, batch).mean()
        loss.backward()
        logits = logits.detach()
        return StepResult(
            loss=loss.detach(),
            aux_loss=torch.zeros_like(loss),
            correct=(logits.argmax(dim=1) == labels).sum(),
            entropy_selected=torch.full_like(loss, math.nan),
            entropy_unselected=reference.entropy(logits).mean(),
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

    def _rows(self, images: Tensor, labels: Tensor) -> Batch:
        return mixup(images, labels, self.mixup, self.generator)
