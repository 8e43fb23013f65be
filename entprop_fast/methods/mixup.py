"""MixUp (Zhang et al., ICLR 2018): plain training on mixed images."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast.methods import common_options as fields
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.options import check_number
from entprop_fast.methods.targets import Targets, mixup
from entprop_fast.methods.vanilla import Vanilla


@dataclass(frozen=True, kw_only=True)
class MixUpOptions(CommonOptions):
    """Hold the options of `MixUp`."""

    mixup: float = fields.mixup(1.0)


class MixUp(Vanilla):
    """MixUp training: the two-label loss of mixed images (cost 1).

    Args:
        model: see `Method`.
        optimizer: see `Method`.
        mixup: lam ~ Beta(mixup, mixup), one for each batch; 0 mixes nothing.
        **options: see `Method`.
    """

    name = "mixup"
    Options = MixUpOptions

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

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Targets]:
        return mixup(images, labels, self.mixup, self.generator)
