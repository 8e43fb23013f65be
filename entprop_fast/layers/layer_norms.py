"""Define layer norms with a main and an auxiliary half, for vision transformers."""

from typing import Any, ClassVar

from torch import nn

from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.halves import make_auxiliary


class DualLayerNorm(DualNorm, nn.LayerNorm):
    """Extend `nn.LayerNorm` by an auxiliary layer norm as its child ``aux_ln``.

    Layer norms keep no statistics over the batch: the halves differ in their affine parameters
    alone. Routes are those of `DualBatchNorm2d`; the first dimension of the input is the batch, or
    a multiple of it that ``route(..., batch=N)`` names.

    Args:
        *args: as `nn.LayerNorm`.
        **kwargs: as `nn.LayerNorm`.
    """

    aux_name = "aux_ln"
    plain_class: ClassVar[type[nn.Module]] = nn.LayerNorm
    norm_class: ClassVar[type[nn.Module]] = nn.LayerNorm
    half_class: ClassVar[type[nn.Module]] = nn.LayerNorm
    aux_ln: nn.LayerNorm

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aux_ln = make_auxiliary(self, nn.LayerNorm)

    def reset_parameters(self) -> None:
        """Reset the affine parameters of both halves."""
        super().reset_parameters()
        if hasattr(self, "aux_ln"):
            self.aux_ln.reset_parameters()
