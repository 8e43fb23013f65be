"""CutMix (Yun et al., ICCV 2019): plain training on images with a box of another."""

from typing import Unpack

import torch
from torch import Tensor, nn

from entprop_fast.methods.base import CommonOptions
from entprop_fast.methods.options import check_number
from entprop_fast.methods.targets import Targets, cutmix
from entprop_fast.methods.vanilla import Vanilla


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
