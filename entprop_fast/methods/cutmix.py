"""CutMix (Yun et al., ICCV 2019): plain training on images with a box of another."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast.methods import common_options as fields
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.options import check_number
from entprop_fast.methods.targets import Targets, cutmix
from entprop_fast.methods.vanilla import Vanilla


@dataclass(frozen=True, kw_only=True)
class CutMixOptions(CommonOptions):
    """Hold the options of `CutMix`."""

    cutmix: float = fields.cutmix(1.0)


class CutMix(Vanilla):
    """CutMix training: the two-label loss of images with a box of another pasted in (cost 1).

    Args:
        model: see `Method`.
        optimizer: see `Method`.
        cutmix: lam ~ Beta(cutmix, cutmix), one for each batch; 0 mixes nothing.
        **options: see `Method`.
    """

    name = "cutmix"
    Options = CutMixOptions

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        cutmix: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(model, optimizer, **options)
        self.cutmix = check_number("cutmix", cutmix, low=0)

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Targets]:
        return cutmix(images, labels, self.cutmix, self.generator)
