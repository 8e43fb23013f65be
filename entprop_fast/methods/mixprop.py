"""MixProp (BMVC 2022): AdvProp with MixUp in place of the attack."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast.methods import common_options as fields
from entprop_fast.methods.base import StepResult
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.options import check_number
from entprop_fast.methods.propagation import Propagation, unselected
from entprop_fast.methods.targets import Targets, mixup


@dataclass(frozen=True, kw_only=True)
class MixPropOptions(CommonOptions):
    """Hold the options of `MixProp`."""

    mixup: float = fields.mixup(1.0)


class MixProp(Propagation):
    """Clean rows through the main norms, mixed ones through the auxiliary; the mean of both losses.

    Args:
        model: has dual norms (`convert_dual_norm`).
        optimizer: made after the conversion.
        mixup: lam ~ Beta(mixup, mixup), one for each batch; 0 mixes nothing.
        **options: see `Method`.
    """

    name = "mixprop"
    Options = MixPropOptions

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        mixup: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(model, optimizer, **options)
        self.mixup = check_number("mixup", mixup, low=0)

    def cost(self, batch: int) -> float:
        """Two passes, whatever the batch."""
        return 2.0

    def _passes(self, images: Tensor, labels: Tensor) -> StepResult:
        mixed, targets = mixup(images, labels, self.mixup, self.generator)
        main = self._main_pass(images, Targets.unmixed(labels), weight=0.5)
        with self._along("aux"):
            aux_loss = self._learn(mixed, targets, 0.5, own=targets.lam is not None)
        return StepResult(main.loss, aux_loss, main.correct, *unselected(main))
