"""Define dual forms of timm's batch norms; imported only where a model brought timm along."""

from timm.layers import (
    BatchNormAct2d,
    SplitBatchNorm2d,
    SyncBatchNormAct,
)
from torch import Tensor, nn

from entprop_fast.layers.batch_norms import DualBatchNorm2d
from entprop_fast.layers.synchronised import DualSyncBatchNorm
from entprop_fast.layers.torch_quirks import has_hooks
from entprop_fast.torch_internals import children_of


class DualBatchNormAct2d(DualBatchNorm2d, BatchNormAct2d):
    """Extend timm's `BatchNormAct2d`: two batch norms, one drop and one activation after them."""

    plain_class = BatchNormAct2d
    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor, residual: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """Normalise along the route, then timm's drop and activation; a plain ReLU is fused."""
        drops = type(self.drop) is not nn.Identity or has_hooks(self.drop)
        if not drops and type(self.act) is nn.ReLU and not has_hooks(self.act):
            return super().forward(x, residual, relu=True)
        y: Tensor = self.act(self.drop(super().forward(x, residual, relu=relu)))
        return y


class DualSyncBatchNormAct(DualSyncBatchNorm, SyncBatchNormAct):
    """Be what timm's ``convert_sync_batchnorm`` makes of a `BatchNormAct2d`, dual or not."""

    plain_class = SyncBatchNormAct
    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor, residual: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """Normalise along the route, then timm's drop and activation."""
        y: Tensor = self.act(self.drop(super().forward(x, residual, relu=relu)))
        return y


def plain_class_of_split(module: nn.Module) -> type[nn.BatchNorm2d] | None:
    """Return what timm's ``convert_splitbn_model`` made `module` from, None if it did not.

    Only with the activation of a `BatchNormAct2d` as a child does it apply one.
    """
    if type(module) is not SplitBatchNorm2d:
        return None
    return BatchNormAct2d if {"drop", "act"} <= children_of(module).keys() else nn.BatchNorm2d
